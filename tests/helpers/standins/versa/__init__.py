"""The part of VERSA's interface that a metric uses (its docs/contributing.md), written for the tests."""
