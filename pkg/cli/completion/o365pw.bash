# bash completion for o365pw                                -*- shell-script -*-
#
# Needs nothing but bash, 3.2 or later. The words are not taken from COMP_WORDS,
# which splits names at colons and keeps their quotes.

# __o365pw_words splits a line up to the cursor into words, as the shell would.
# It sets words, the last of which the cursor is in; quote, which is open there;
# and head, what stands in that word before the part that bash will replace.
# Variables and ~/ are filled in; nothing is run.
__o365pw_words() {
    local line=$1 length=${#1} i=0 c name word='' inside=''
    words=() quote='' head=''
    for ((; i < length; i++)); do
        c=${line:i:1}
        case $quote$c in
        [[:blank:]])
            [[ $inside ]] && words+=("$word")
            word='' head='' inside=''
            continue
            ;;
        \' | \")
            quote=$c head=$word
            ;;
        \'\' | \"\")
            quote='' head=$word
            ;;
        \\)
            ((++i))
            word+=${line:i:1}
            ;;
        \"\\)
            case ${line:i+1:1} in [\"\\\$\`]) ((++i)) ;; esac
            word+=${line:i:1}
            ;;
        \$ | \"\$)
            name=${line:i+1}
            if [[ $name == \{* ]]; then
                name=${name%%\}*} name=${name:1}
                c="\${$name}"
            else
                name=${name%%[!A-Za-z0-9_]*}
                c="\$$name"
            fi
            if [[ $name == [A-Za-z_]* && $name != *[!A-Za-z0-9_]* ]]; then
                word+=${!name}
                ((i += ${#c} - 1))
            else
                word+=\$
            fi
            ;;
        \~)
            if [[ ! $inside && ${line:i+1:1} == / ]]; then word=$HOME; else word+=$c; fi
            ;;
        *)
            word+=$c
            # Of an address bash replaces the @, too.
            [[ ! $quote && $COMP_WORDBREAKS == *"$c"* ]] && head=${word%@}
            ;;
        esac
        inside=1
    done
    words+=("$word")
}

# __o365pw_quote sets REPLY to $1 as it can stand behind the open quote.
__o365pw_quote() {
    local c
    REPLY=$1
    case $quote in
    \') REPLY=${REPLY//\'/\'\\\'\'} ;;
    \")
        for c in \\ \" \$ \`; do REPLY=${REPLY//"$c"/\\"$c"}; done
        # History is filled in behind this quote, and no backslash keeps it out.
        REPLY=${REPLY//!/\"\\!\"}
        ;;
    *)
        [[ $REPLY == *[!A-Za-z0-9_.,:=/@%+-]* ]] || return 0
        local in=$REPLY i specials=$' \t"\'\\$`&|;<>()[]{}*?!#~^'
        REPLY=''
        for ((i = 0; i < ${#in}; i++)); do
            c=${in:i:1}
            [[ $specials == *"$c"* ]] && REPLY+=\\
            REPLY+=$c
        done
        ;;
    esac
}

__o365pw_files() { # DIRECTIVE FLAG VALUE
    local kind=-f file quotes=''
    (($1 & 16)) && kind=-d
    compopt -o filenames 2>/dev/null || quotes=1 # bash does it then
    while IFS='' read -r file; do
        [[ $quotes && -d $file ]] && file+=/
        file=$2$file
        file=${file:${#head}}
        if [[ $quotes ]]; then
            __o365pw_quote "$file"
            file=$REPLY
        fi
        COMPREPLY+=("$file")
    done < <(compgen "$kind" -- "$3")
}

__o365pw_complete() {
    local words quote head REPLY
    COMPREPLY=()
    __o365pw_words "${COMP_LINE:0:COMP_POINT}"
    local last=$((${#words[@]} - 1))
    ((last > 0)) || return 0
    local current=${words[last]} program=${words[0]} out
    type -P -- "$program" >/dev/null || program=o365pw
    out=$("$program" __complete "${words[@]:1:last}" 2>/dev/null) || return 0
    local directive=${out##*:} flag='' value=$current
    [[ $directive && $directive != *[!0-9]* ]] || return 0
    out=${out%:*}
    if [[ $current == -*=* ]]; then
        flag=${current%%=*}= value=${current#*=}
    fi

    local line text tab=$'\t' sensitive='' found=() texts=() longest=0
    shopt -q nocasematch || sensitive=1
    shopt -s nocasematch
    while IFS='' read -r line; do
        text=${line#*"$tab"} line=${line%%"$tab"*}
        [[ $line && $line == "$value"* ]] || continue
        [[ $text == "$line" ]] && text=''
        found+=("$line") texts+=("$text")
        ((${#line} > longest)) && longest=${#line}
    done <<<"$out"
    [[ $sensitive ]] && shopt -u nocasematch

    if ((${#found[@]} == 0)); then
        ((directive & 4)) || __o365pw_files "$directive" "$flag" "$value"
        return 0
    fi
    ((directive & 2)) && compopt -o nospace 2>/dev/null
    ((directive & 32)) && compopt -o nosort 2>/dev/null
    local i width=$((${COLUMNS:-80} - longest - 5))
    for ((i = 0; i < ${#found[@]}; i++)); do
        line=$flag${found[i]}
        # A list of what is possible shows what each is. Nothing of it is put
        # into the line.
        if ((COMP_TYPE == 63 && ${#found[@]} > 1)); then
            line=${found[i]}
            if [[ ${texts[i]} ]] && ((width > 10)); then
                text=${texts[i]}
                ((${#text} > width)) && text=${text:0:width-1}…
                printf -v line '%s%*s  (%s)' "$line" $((longest - ${#line})) '' "$text"
            fi
            COMPREPLY+=("$line")
            continue
        fi
        __o365pw_quote "${line:${#head}}"
        COMPREPLY+=("$REPLY")
    done
}

complete -F __o365pw_complete o365pw
