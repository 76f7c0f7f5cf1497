"""A local web page that scores uploaded or recorded speech."""
