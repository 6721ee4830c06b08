# fish completion for o365pw

# __o365pw_ask sets __o365pw_answer to what may stand at the cursor. It fails
# where that is a file: fish then completes it by itself.
function __o365pw_ask
    set --global __o365pw_answer
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
    set -l program $words[1]
    command --query $program; or set program o365pw
    set -l answer ($program __complete $words[2..] "$current" 2>/dev/null)
    string match --quiet --regex '^:\d+$' -- $answer[-1]; or return 0
    set -l directive (string sub --start 2 -- $answer[-1])
    set --erase answer[-1]

    # fish takes --flag=value for one word.
    set -l flag (string match --regex -- '^-[^=]*=' "$current")
    if test (count $answer) -eq 0
        if test (math "bitand($directive, 16)") -ne 0
            set answer (__fish_complete_directories (string replace -- "$flag" '' "$current") '')
        else
            test (math "bitand($directive, 4)") -ne 0
            return
        end
    end
    for line in $answer
        set --append __o365pw_answer "$flag$line"
    end
end

complete --command o365pw --erase
complete --command o365pw --condition __o365pw_ask --no-files --keep-order --arguments '$__o365pw_answer'
