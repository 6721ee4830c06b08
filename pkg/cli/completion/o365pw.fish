# fish completion for o365pw

function __o365pw_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    # Of a quote that is still open, fish gives the rest as it is.
    switch "$current"
        case "'*" '"*'
            set current (string sub --start 2 -- $current)
        case '*'
            set current (string unescape -- $current)
    end
    set words (string replace --regex '^~(?=/)' -- $HOME $words)
    set current (string replace --regex '^~(?=/)' -- $HOME "$current")
    set -l program $words[1]
    command --query $program; or set program o365pw
    set -l answer ($program __complete $words[2..] "$current" 2>/dev/null)
    string match --quiet --regex '^:\d+$' -- $answer[-1]; or return
    set -l directive (string sub --start 2 -- $answer[-1])
    set --erase answer[-1]

    # fish takes --flag=value for one word.
    set -l flag (string match --regex -- '^-[^=]*=' "$current")
    if test (count $answer) -eq 0
        test (math "bitand($directive, 4)") -ne 0; and return
        set -l path (string replace -- "$flag" '' "$current")
        if test (math "bitand($directive, 16)") -ne 0
            set answer (__fish_complete_directories "$path" '')
        else
            set answer (__fish_complete_path "$path" '')
        end
    end
    for line in $answer
        printf '%s%s\n' "$flag" $line
    end
end

complete --command o365pw --erase
complete --command o365pw --no-files --keep-order --arguments '(__o365pw_complete)'
