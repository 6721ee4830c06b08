#compdef o365pw
# zsh completion for o365pw

_o365pw() {
    local -a args answer lines options
    local current=${(Q)PREFIX} program=${(Q)words[1]} directive line value tab=$'\t'
    args=("${(@Q)words[2,CURRENT-1]}")
    args=("${(@)args/#\~\//$HOME/}")
    program=${program/#\~\//$HOME/}
    whence -p -- $program >/dev/null || program=o365pw
    answer=("${(@f)$($program __complete "${args[@]}" "$current" 2>/dev/null)}")
    [[ $answer[-1] == :<-> ]] || return 1
    directive=${answer[-1]#:}
    answer[-1]=()
    [[ $current == -*=* ]] && compset -P 1 '*='

    if (( $#answer == 0 )); then
        (( directive & 4 )) && return 1
        if (( directive & 16 )); then _files -/; else _files; fi
        return
    fi
    for line in "${answer[@]}"; do
        value=${line%%$tab*}
        value=${value//\\/\\\\}
        value=${value//:/\\:}
        if [[ $line == *$tab* ]]; then value+=:${line#*$tab}; fi
        lines+=("$value")
    done
    (( directive & 2 )) && options+=(-S '')
    # In the order given; without regard to case.
    _describe -V -t o365pw 'o365pw' lines -M 'm:{[:lower:][:upper:]}={[:upper:][:lower:]}' "${options[@]}"
}

# The file works in a folder of fpath, and sourced.
if [[ $funcstack[1] == _o365pw ]]; then
    _o365pw "$@"
elif (( $+functions[compdef] )); then
    compdef _o365pw o365pw
fi
