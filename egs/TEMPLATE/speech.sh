# shellcheck shell=bash
# Plain speech for recipes that make their data from it; their local/data.sh sources this.

# find_speech DATA_DIR DOWNLOAD_DIR BASE_URL: sets `speech` to a directory of recordings: DATA_DIR or, if that is empty,
# LibriSpeech's train-clean-100, downloaded from BASE_URL.
find_speech() {
    # shellcheck disable=SC2034  # for the caller
    speech=$1
    if [ -z "$1" ]; then
        speech=$2/train-clean-100
        distilmos download --md5 2a93770f6d5c6c964bc36631d331a522 --unpack "${speech}" \
            "$3/train-clean-100.tar.gz" "$2/train-clean-100.tar.gz"
    fi
}
