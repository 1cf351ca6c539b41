# shellcheck shell=bash disable=SC2154 # $work is of lib.sh
# Sourced after lib.sh by the tests that open pages in a browser.
#   need_browser NAME   ends the test with a skip where there is none
#   browse PAGE         a file in $work
#   silent, asks_nobody what the browser said and asked for then
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
need_browser() {
    [ -n "$browser" ] && return
    skip "$1" "no chromium (scripts/setup.sh --dev)"
    finish
}
# Its DOM goes into dom.html, the console into console.txt, requests into net.json.
browse() {
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" \
        --disable-background-networking --disable-component-update --no-first-run \
        --log-net-log="$work/net.json" \
        --enable-logging=stderr --v=0 --dump-dom "file://$work/$1" >dom.html 2>console.txt
}
silent() { ! grep -E 'CONSOLE|Refused|violates' console.txt; }
# 101845102 marks what a page has asked for; the browser has requests of its own.
requests() { grep -oE '"traffic_annotation":101845102,"url":"[a-z]+://[^"]*"' net.json | grep -v '"file:'; }
asks_nobody() { ! requests; }
