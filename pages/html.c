#include "pages/html.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/utf8.h"

// Colours 0 to 5 are those of curves and bars: told apart with any kind of colour vision (after
// Okabe and Ito, darkened or lightened), and at least 3:1 against the background. Text is 4.5:1.
static const char STYLE[] =
    ":root{color-scheme:light dark;--back:#f6f7f9;--card:#fff;--text:#1b1f24;--soft:#566069;"
    "--line:#d5dae0;--heat:0,103,165;--c0:#0067a5;--c1:#c44e00;--c2:#00805d;--c3:#a8327e;"
    "--c4:#7a6300;--c5:#5b5bd6}\n"
    "@media(prefers-color-scheme:dark){:root{--back:#0f1216;--card:#181c22;--text:#e6e9ed;"
    "--soft:#a3adb8;--line:#333b45;--heat:60,150,215;--c0:#56b4e9;--c1:#ff9440;--c2:#2fcf9f;"
    "--c3:#f29ac8;--c4:#e8d24a;--c5:#a9a9ff}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}\n"
    "main{max-width:1120px;margin:0 auto;padding:16px}\n"
    "h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}\n"
    "h2{font-size:1.15rem;margin:0}\n"
    "p{margin:0 0 .5rem;max-width:75ch;overflow-wrap:anywhere}\n"
    "section p{margin:0}\n"
    ".note,figcaption small{color:var(--soft);font-weight:400;font-size:.875rem}\n"
    "section{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));"
    "gap:12px 32px;background:var(--card);border:1px solid var(--line);border-radius:10px;"
    "padding:16px;margin:16px 0}\n"
    "section>h2,section>p,section>details,.wide{grid-column:1/-1}\n"
    "figure{margin:0;min-width:0}\n"
    "figcaption{font-weight:600;margin-bottom:.25rem}\n"
    ".scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.25rem .75rem .25rem 0;text-align:left;vertical-align:top;"
    "border-bottom:1px solid var(--line)}\n"
    "th{font-weight:500;color:var(--soft)}\n"
    "tbody th{white-space:nowrap}\n"
    "td.number,th.number{text-align:right}\n"
    "svg.chart{display:block;width:100%;height:auto;overflow:visible;font-size:12px}\n"
    "@media(max-width:600px){svg.chart{font-size:14px}}\n"
    "svg text{fill:var(--soft);font-family:system-ui,sans-serif}\n"
    "svg .value{fill:var(--text)}\n"
    "svg .axis{stroke:var(--line);fill:none}\n"
    "svg .curve{fill:none;stroke-width:1.75;stroke-linejoin:round}\n"
    "svg .interval{stroke:var(--text);stroke-width:1.5;fill:none}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:0 16px;margin:0;padding:0;list-style:none;"
    "font-size:.875rem}\n"
    "svg.key{width:28px;height:10px;margin-right:6px;vertical-align:middle}\n"
    ".results{grid-column:1/-1;display:flex;flex-wrap:wrap;gap:12px 32px;margin:16px 0}\n"
    ".results dt{color:var(--soft);font-size:.875rem}\n"
    ".results dd{margin:0;font-size:1.35rem;font-weight:600}\n"
    ".options{grid-column:1/-1;columns:3 240px;margin:0;font-size:.875rem}\n"
    ".options div{display:flex;gap:8px;break-inside:avoid;border-bottom:1px solid var(--line)}\n"
    ".options dt{color:var(--soft)}\n"
    ".options dd{margin:0 0 0 auto;overflow-wrap:anywhere;text-align:right}\n"
    ".matrix td{text-align:right;padding:.25rem .4rem;min-width:2.6em;"
    "background:rgba(var(--heat),calc(var(--share,0)*.75))}\n"
    ".matrix thead th{writing-mode:vertical-rl;transform:rotate(180deg);padding:.5rem .25rem}\n"
    ".matrix thead th:first-child{writing-mode:initial;transform:none;vertical-align:bottom}\n"
    ".pictures img{image-rendering:pixelated;max-width:100%;height:auto}\n"
    "div.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(96px,1fr));"
    "gap:12px}\n"
    "div.pictures img{width:100%}\n"
    "div.pictures small{display:block}\n"
    "figure.pictures img{width:100%}\n"
    "summary{cursor:pointer}\n"
    "a{color:var(--c0)}\n"
    ":focus-visible{outline:3px solid var(--c0);outline-offset:2px}\n";

int html_open(Html *h, const char *title, int refresh_seconds, Error *e)
{
    *h = (Html){0};
    h->out = open_memstream(&h->text, &h->size);
    if (!h->out) return fail_errno(e, STATUS_IO, "cannot make a page");
    html_raw(h, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                "img-src data:; style-src 'unsafe-inline'\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    if (refresh_seconds > 0)
        html_raw(h, "<meta http-equiv=\"refresh\" content=\"%d\">\n", refresh_seconds);
    html_raw(h, "<link rel=\"icon\" href=\"data:,\">\n<title>");
    html_text(h, "%s", title);
    html_raw(h, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>", STYLE);
    html_text(h, "%s", title);
    html_raw(h, "</h1>\n");
    return STATUS_OK;
}

static void end_section(Html *h)
{
    if (h->in_section) html_raw(h, "</section>\n");
    h->in_section = false;
}

int html_save(Html *h, const char *path, Error *e)
{
    end_section(h);
    html_raw(h, "</main>\n</body>\n</html>\n");
    const bool failed = ferror(h->out);
    int status = STATUS_OK;
    if (fclose(h->out) != 0 || failed)
        status = fail(e, STATUS_IO, "not enough memory for %s", path);
    else
        status = os_write_atomic(path, h->text, h->size, e);
    free(h->text);
    return status;
}

// What is not printable becomes "?".
static void escape(FILE *out, const char *text)
{
    const char *const end = text + strlen(text);
    while (text < end) {
        const size_t bytes = utf8_printable(text, end);
        if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else if (bytes > 0)
            fwrite(text, 1, bytes, out);
        else
            putc(*text == '\n' ? '\n' : '?', out);
        text += bytes > 0 ? bytes : 1;
    }
}

void html_raw(Html *h, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(h->out, format, args);
    va_end(args);
}

static void escaped(Html *h, const char *format, va_list args)
{
    char buffer[512], *text = buffer;
    va_list again;
    va_copy(again, args);
    const int length = vsnprintf(buffer, sizeof buffer, format, args);
    if (length >= (int)sizeof buffer && vasprintf(&text, format, again) < 0) text = NULL;
    va_end(again);
    if (text) escape(h->out, text); // else the page itself is short of memory
    if (text != buffer) free(text);
}

void html_text(Html *h, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    escaped(h, format, args);
    va_end(args);
}

void html_element(Html *h, const char *tag, const char *format, ...)
{
    va_list args;
    html_raw(h, "<%s>", tag);
    va_start(args, format);
    escaped(h, format, args);
    va_end(args);
    html_raw(h, "</%.*s>", (int)strcspn(tag, " "), tag);
}

void html_value(Html *h, const JsonNode *value)
{
    if (!value || value->type == JSON_NULL)
        html_raw(h, "–");
    else if (value->type == JSON_STRING)
        html_text(h, "%s", value->string);
    else if (value->type == JSON_BOOL)
        html_raw(h, "%s", value->boolean ? "on" : "off");
    else if (value->type == JSON_INT)
        html_raw(h, "%lld", (long long)value->integer);
    else
        html_raw(h, "%.6g", json_number(value));
}

void html_data(Html *h, double value, const char *format, double shown)
{
    html_raw(h, "<data value=\"%.9g\">", value);
    html_raw(h, isfinite(value) ? format : "–", shown);
    html_raw(h, "</data>");
}

void html_section(Html *h, const char *title)
{
    end_section(h);
    h->in_section = true;
    html_raw(h, "<section>\n");
    html_element(h, "h2", "%s", title);
    html_raw(h, "\n");
}

void html_figure(Html *h, const char *caption, const char *class)
{
    html_raw(h, "<figure%s%s%s>\n<figcaption>", *class ? " class=\"" : "", class,
             *class ? "\"" : "");
    html_text(h, "%s", caption);
    html_raw(h, "</figcaption>\n");
}

void html_end_figure(Html *h)
{
    html_raw(h, "</figure>\n");
}

void html_table(Html *h, const char *caption, const char *class, const char *const *columns)
{
    html_figure(h, caption, class);
    html_raw(h, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
    html_text(h, "%s", caption);
    html_raw(h, "\">\n<table>\n<thead><tr>");
    for (; *columns; columns++) {
        html_element(h, "th scope=\"col\"", "%s", *columns);
    }
    html_raw(h, "</tr></thead>\n<tbody>\n");
}

static void end_row(Html *h)
{
    if (h->in_row) html_raw(h, "</tr>\n");
    h->in_row = false;
}

void html_begin_row(Html *h)
{
    end_row(h);
    h->in_row = true;
    html_raw(h, "<tr>");
}

void html_row(Html *h, const char *name)
{
    html_begin_row(h);
    html_element(h, "th scope=\"row\"", "%s", name);
}

void html_data_cell(Html *h, double value, const char *format, double shown)
{
    html_raw(h, "<td class=\"number\">");
    html_data(h, value, format, shown);
    html_raw(h, "</td>");
}

void html_end_table(Html *h)
{
    end_row(h);
    html_raw(h, "</tbody>\n</table>\n</div>\n");
    html_end_figure(h);
}
