#!/usr/bin/env bash
# What the action does (see action.yml). Runs in the bash of every runner, which
# on macOS is version 3.2.
#
#   action.sh install   puts the release O365PW_VERSION on the PATH of later steps
#   action.sh run       runs o365pw with the arguments in O365PW_ARGS, one a line
#
# O365PW_RELEASES is where releases are taken from, for tests. Whoever signs them
# stays the same.
set -euo pipefail

repository=https://github.com/o365pw/o365pw
releases=${O365PW_RELEASES:-$repository/releases}

fail() {
	printf '::error title=o365pw::%s\n' "$1" >&2
	exit 1
}

# fetch NAME FILE
fetch() {
	curl --proto "=${releases%%:*}" --fail --silent --show-error --location --retry 3 --max-time 300 \
		--output "$2" "$releases/download/v$version/$1" ||
		fail "$1 of version $version could not be fetched from $releases"
}

# sum FILE
sum() {
	if command -v sha256sum >/dev/null; then
		sha256sum <"$1"
	else
		shasum -a 256 <"$1"
	fi | cut -d ' ' -f 1
}

# latest asks without the API, which is limited and wants a token.
latest() {
	local location
	location=$(curl --proto "=${releases%%:*}" --fail --silent --show-error --max-time 60 \
		--output /dev/null --write-out '%{redirect_url}' "$releases/latest") ||
		fail "the latest version could not be asked for at $releases"
	case $location in
	*/tag/v*) printf '%s' "${location##*/tag/v}" ;;
	*) fail "$releases/latest does not lead to a release" ;;
	esac
}

install() {
	local os arch extension=tar.gz cache work archive want got
	version=${O365PW_VERSION:-latest}
	[[ $version != latest ]] || version=$(latest)
	version=${version#v}
	[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail 'version is neither like 1.2.3 nor latest'

	case ${RUNNER_OS:-} in
	Linux) os=linux ;;
	macOS) os=darwin ;;
	Windows) os=windows extension=zip ;;
	*) fail "there is no release for the system ${RUNNER_OS:-unknown}" ;;
	esac
	case ${RUNNER_ARCH:-} in
	X64) arch=amd64 ;;
	ARM64) arch=arm64 ;;
	ARM) arch=armv7 ;;
	*) fail "there is no release for the processor ${RUNNER_ARCH:-unknown}" ;;
	esac

	# Not the tool cache: on a runner of one's own other jobs write there, too. This
	# is emptied before each job.
	cache=${RUNNER_TEMP:?}/o365pw
	if [[ $os == windows ]]; then
		cache=$(cygpath --unix "$cache")
	fi
	# A folder is there whole or not at all.
	if [[ ! -d $cache/$version/$arch ]]; then
		archive=o365pw_${version}_${os}_$arch.$extension
		mkdir -p "$cache/$version"
		work=$(mktemp -d "$cache/$version/.new-XXXXXX")
		# shellcheck disable=SC2064 # this folder, not what work is then
		trap "rm -rf -- $(printf %q "$work")" EXIT
		command -v cosign >/dev/null || fail 'cosign is not there, so the signature cannot be checked'
		fetch checksums.txt "$work/checksums.txt"
		fetch checksums.txt.sigstore.json "$work/checksums.txt.sigstore.json"
		fetch "$archive" "$work/$archive"
		cosign verify-blob --bundle "$work/checksums.txt.sigstore.json" \
			--certificate-identity "$repository/.github/workflows/release.yml@refs/tags/v$version" \
			--certificate-oidc-issuer https://token.actions.githubusercontent.com \
			"$work/checksums.txt" >&2 ||
			fail "the checksums of version $version are not signed by the workflow that releases o365pw"
		want=$(awk -v name="$archive" '$2 == name || $2 == "*" name { print $1 }' "$work/checksums.txt")
		[[ $want =~ ^[0-9a-f]{64}$ ]] || fail "checksums.txt of version $version does not have $archive once"
		got=$(sum "$work/$archive")
		[[ $got == "$want" ]] || fail "$archive is not what was released: its SHA-256 is $got, not $want"

		mkdir "$work/bin"
		if [[ $extension == zip ]]; then
			unzip -q "$work/$archive" -d "$work/bin"
		else
			tar -xzf "$work/$archive" -C "$work/bin"
		fi
		"$work/bin/o365pw" version >&2 || fail "o365pw $version does not run here"
		# Another step may have been quicker; what it put there is as good.
		mv "$work/bin" "$cache/$version/$arch" 2>/dev/null || [[ -d $cache/$version/$arch ]] ||
			fail "$cache/$version/$arch cannot be written"
	fi

	local path=$cache/$version/$arch
	if [[ $os == windows ]]; then
		path=$(cygpath --windows "$path")
	fi
	printf '%s\n' "$path" >>"$GITHUB_PATH"
	printf 'version=%s\npath=%s\n' "$version" "$path" >>"$GITHUB_OUTPUT"
	printf 'o365pw %s is installed\n' "$version" >&2
}

run() {
	local args=() line
	while IFS= read -r line || [[ -n $line ]]; do
		line=${line%$'\r'}
		[[ -z $line ]] || args+=("$line")
	done <<<"${O365PW_ARGS:-}"
	((${#args[@]})) || fail 'args is empty'
	exec o365pw "${args[@]}"
}

case ${1:-} in
install) install ;;
run) run ;;
*) fail 'usage: action.sh install | run' ;;
esac
