#include "base/args.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 64 };

static bool is_option(const Arg *a)
{
    return a->type != ARG_TYPE_HEADING && a->type != ARG_TYPE_POSITIONAL &&
           a->type != ARG_TYPE_REST;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    const size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

// Levenshtein's distance: insertions, deletions and substitutions that turn a into b.
static size_t edit_distance(const char *a, const char *b)
{
    const size_t na = strlen(a), nb = strlen(b);
    if (na >= MAX_NAME || nb >= MAX_NAME) return MAX_NAME;
    size_t row[MAX_NAME]; // distances of a[0..i) to every prefix of b
    for (size_t j = 0; j <= nb; j++) row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = min3(substituted, row[j] + 1, row[j - 1] + 1);
        }
    }
    return row[nb];
}

// Remembers in *best the candidate nearest to `word`: one it is the start of, or a few typing
// errors away.
static void consider(const char *word, const char *candidate, const char **best, size_t *best_cost)
{
    const size_t n = strlen(word);
    const bool start = n >= 3 && strncmp(word, candidate, n) == 0;
    const size_t cost = start ? 1 : edit_distance(word, candidate);
    if (cost >= *best_cost || (cost > 2 && 3 * cost > n)) return;
    if (cost >= n && n > 0 && cost >= strlen(candidate)) return; // nothing in common
    *best = candidate;
    *best_cost = cost;
}

static int unknown_option(const Arg *table, size_t n, const char *name, Error *e)
{
    const char *best = NULL;
    size_t cost = MAX_NAME;
    for (size_t i = 0; i < n; i++)
        if (is_option(&table[i])) consider(name, table[i].name, &best, &cost);
    if (best) return fail(e, STATUS_USAGE, "unknown option --%s; did you mean --%s?", name, best);
    return fail(e, STATUS_USAGE, "unknown option --%s; --help lists all options", name);
}

// What a number may be, as "from 1 to 10".
static void describe_range(const Arg *a, char *text, size_t size)
{
    if (isinf(a->max))
        snprintf(text, size, "of at least %.12g", a->min);
    else
        snprintf(text, size, "from %.12g to %.12g", a->min, a->max);
}

static int parse_int(const Arg *a, const char *text, Error *e)
{
    const size_t digits = strspn(text, "0123456789");
    errno = 0;
    const long long v = strtoll(text, NULL, 10);
    const bool plain = digits > 0 && text[digits] == '\0' && errno == 0;
    if (plain && (double)v >= a->min && (double)v <= a->max) {
        *a->integer = v;
        return 0;
    }
    char range[80];
    describe_range(a, range, sizeof range);
    return fail(e, STATUS_USAGE, "--%s %s: expected a whole number %s", a->name, text, range);
}

bool args_decimal(const char *text, double min, double max, double *number)
{
    // strtod() would also take "nan", "inf", hexadecimal and leading white space.
    const bool decimal = text[0] && text[strspn(text, "0123456789+-.eE")] == '\0';
    char *end;
    const double v = strtod(text, &end);
    if (!decimal || *end != '\0' || !isfinite(v) || v < min || v > max) return false;
    *number = v;
    return true;
}

static int parse_double(const Arg *a, const char *text, Error *e)
{
    if (args_decimal(text, a->min, a->max, a->real)) return 0;
    char range[80];
    describe_range(a, range, sizeof range);
    return fail(e, STATUS_USAGE, "--%s %s: expected a number %s", a->name, text, range);
}

// "constant|triangle|cosine"
static void join_choices(const Arg *a, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (const char *const *c = a->choices; *c && used < size; c++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", c == a->choices ? "" : "|", *c);
}

static int parse_choice(const Arg *a, const char *text, Error *e)
{
    const char *best = NULL;
    size_t cost = MAX_NAME;
    for (int i = 0; a->choices[i]; i++) {
        if (strcmp(a->choices[i], text) == 0) {
            *a->choice = i;
            return 0;
        }
        consider(text, a->choices[i], &best, &cost);
    }
    char all[256];
    join_choices(a, all, sizeof all);
    if (best)
        return fail(e, STATUS_USAGE, "--%s %s: expected %s; did you mean %s?", a->name, text, all,
                    best);
    return fail(e, STATUS_USAGE, "--%s %s: expected %s", a->name, text, all);
}

static int parse_onoff(const Arg *a, const char *text, Error *e)
{
    *a->flag = strcmp(text, "on") == 0;
    if (*a->flag || strcmp(text, "off") == 0) return 0;
    return fail(e, STATUS_USAGE, "--%s %s: expected on|off", a->name, text);
}

static int empty_value(const Arg *a, Error *e)
{
    return fail(e, STATUS_USAGE, "the value of %s%s is empty; expected %s",
                is_option(a) ? "--" : "", a->name, a->meta);
}

static int parse_value(Arg *a, const char *text, Error *e)
{
    a->given = true;
    switch (a->type) {
    case ARG_TYPE_INT:
        return parse_int(a, text, e);
    case ARG_TYPE_DOUBLE:
        return parse_double(a, text, e);
    case ARG_TYPE_CHOICE:
        return parse_choice(a, text, e);
    case ARG_TYPE_ONOFF:
        return parse_onoff(a, text, e);
    case ARG_TYPE_STRING:
    case ARG_TYPE_POSITIONAL:
        if (!*text) return empty_value(a, e);
        *a->string = text;
        return 0;
    case ARG_TYPE_FLAG:
    case ARG_TYPE_HEADING:
    case ARG_TYPE_REST:
        break;
    }
    return fail(e, STATUS_USAGE, "--%s takes no value; write --%s alone", a->name, a->name);
}

static Arg *find_option(Arg *table, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (is_option(&table[i]) && strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

// argv[*i] is "--name" or "--name=value"; *i moves to the last argument used.
static int parse_option(Arg *table, size_t n, int argc, char **argv, int *i, Error *e)
{
    char name[MAX_NAME];
    const char *text = argv[*i] + 2;
    const char *equals = strchr(text, '=');
    snprintf(name, sizeof name, "%.*s", (int)(equals ? equals - text : (long)strlen(text)), text);
    Arg *a = find_option(table, n, name);
    if (!a) return unknown_option(table, n, name, e);
    if (equals) return parse_value(a, equals + 1, e);
    if (a->type == ARG_TYPE_FLAG) {
        *a->flag = a->given = true;
        return 0;
    }
    if (*i + 1 == argc || strncmp(argv[*i + 1], "--", 2) == 0)
        return fail(e, STATUS_USAGE, "--%s needs a value: %s", name, a->help);
    return parse_value(a, argv[++*i], e);
}

// What is moved to argv[1] and on never passes what is still to be read.
static int add_to_list(Arg *a, char **argv, char *text, Error *e)
{
    if (!*text) return empty_value(a, e);
    if (!a->given) *a->list = (ArgList){.item = argv + 1};
    a->given = true;
    a->list->item[a->list->count++] = text;
    return 0;
}

static int parse_positional(Arg *table, size_t n, char **argv, char *text, Error *e)
{
    for (size_t i = 0; i < n; i++) {
        if (table[i].type == ARG_TYPE_POSITIONAL && !table[i].given)
            return parse_value(&table[i], text, e);
        if (table[i].type == ARG_TYPE_REST && (text[0] != '-' || text[1] == '\0'))
            return add_to_list(&table[i], argv, text, e);
    }
    if (text[0] == '-')
        return fail(e, STATUS_USAGE, "unknown option %s; options start with --", text);
    return fail(e, STATUS_USAGE, "unexpected argument %s; --help lists all options", text);
}

int args_parse(Arg *table, size_t n, int argc, char **argv, Error *e)
{
    for (int i = 1; i < argc; i++) {
        const int status = strncmp(argv[i], "--", 2) == 0
                               ? parse_option(table, n, argc, argv, &i, e)
                               : parse_positional(table, n, argv, argv[i], e);
        if (status) return status;
    }
    return 0;
}

bool args_help_asked(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) return true;
    return false;
}

bool args_given(const Arg *table, size_t n, const void *value)
{
    for (size_t i = 0; i < n; i++)
        if (table[i].given && table[i].value == value) return true;
    return false;
}

// "  --batch-size N"
static int format_name(const Arg *a, char *text, size_t size)
{
    char words[256];
    switch (a->type) {
    case ARG_TYPE_HEADING:
        return 0;
    case ARG_TYPE_POSITIONAL:
    case ARG_TYPE_REST:
        return snprintf(text, size, "  %s", a->name);
    case ARG_TYPE_FLAG:
        return snprintf(text, size, "  --%s", a->name);
    case ARG_TYPE_ONOFF:
        return snprintf(text, size, "  --%s on|off", a->name);
    case ARG_TYPE_INT:
        return snprintf(text, size, "  --%s N", a->name);
    case ARG_TYPE_DOUBLE:
        return snprintf(text, size, "  --%s F", a->name);
    case ARG_TYPE_STRING:
        return snprintf(text, size, "  --%s %s", a->name, a->meta);
    case ARG_TYPE_CHOICE:
        join_choices(a, words, sizeof words);
        return snprintf(text, size, "  --%s %s", a->name, words);
    }
    return 0;
}

// " [128]": what the variable holds now; nothing for a flag that is off or a string that is unset.
static void format_default(const Arg *a, char *text, size_t size)
{
    text[0] = '\0';
    switch (a->type) {
    case ARG_TYPE_INT:
        snprintf(text, size, " [%lld]", (long long)*a->integer);
        break;
    case ARG_TYPE_DOUBLE:
        snprintf(text, size, " [%g]", *a->real);
        break;
    case ARG_TYPE_ONOFF:
        snprintf(text, size, " [%s]", *a->flag ? "on" : "off");
        break;
    case ARG_TYPE_CHOICE:
        snprintf(text, size, " [%s]", a->choices[*a->choice]);
        break;
    case ARG_TYPE_STRING:
    case ARG_TYPE_POSITIONAL:
        if (*a->string) snprintf(text, size, " [%s]", *a->string);
        break;
    case ARG_TYPE_FLAG:
    case ARG_TYPE_HEADING:
    case ARG_TYPE_REST:
        break;
    }
}

void args_help(const Arg *table, size_t n, FILE *out, const char *usage)
{
    enum { WIDEST = 30 }; // a longer name pushes only its own help to the right
    char name[320], value[320];
    int column = 0;
    for (size_t i = 0; i < n; i++) {
        const int width = format_name(&table[i], name, sizeof name);
        if (width <= WIDEST && width > column) column = width;
    }
    fprintf(out, "%s\n", usage);
    for (size_t i = 0; i < n; i++) {
        if (table[i].type == ARG_TYPE_HEADING) {
            fprintf(out, "%s:\n", table[i].name);
            continue;
        }
        if (!table[i].help) continue;
        format_name(&table[i], name, sizeof name);
        format_default(&table[i], value, sizeof value);
        fprintf(out, "%-*s  %s%s\n", column, name, table[i].help, value);
    }
}

static void write_value(const Arg *a, const char *key, Json *j)
{
    switch (a->type) {
    case ARG_TYPE_FLAG:
    case ARG_TYPE_ONOFF:
        json_bool(j, key, *a->flag);
        break;
    case ARG_TYPE_INT:
        json_int(j, key, *a->integer);
        break;
    case ARG_TYPE_DOUBLE:
        json_double(j, key, *a->real);
        break;
    case ARG_TYPE_CHOICE:
        json_string(j, key, a->choices[*a->choice]);
        break;
    case ARG_TYPE_STRING:
    case ARG_TYPE_POSITIONAL:
        json_string(j, key, *a->string);
        break;
    case ARG_TYPE_HEADING:
    case ARG_TYPE_REST:
        break;
    }
}

static void json_key(const Arg *a, char key[static MAX_NAME])
{
    snprintf(key, MAX_NAME, "%s", a->name);
    for (char *c = key; *c; c++)
        if (*c == '-') *c = '_';
}

void args_json(const Arg *table, size_t n, Json *j)
{
    for (size_t i = 0; i < n; i++) {
        char key[MAX_NAME];
        json_key(&table[i], key);
        write_value(&table[i], key, j);
    }
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static int choice_of(const Arg *a, const JsonNode *v)
{
    for (int i = 0; v->type == JSON_STRING && a->choices[i]; i++)
        if (strcmp(a->choices[i], v->string) == 0) return i;
    return -1;
}

// Whether `v` is a value that the option can have.
static bool is_value(const Arg *a, const JsonNode *v)
{
    switch (a->type) {
    case ARG_TYPE_FLAG:
    case ARG_TYPE_ONOFF:
        return v->type == JSON_BOOL;
    case ARG_TYPE_INT:
        return v->type == JSON_INT && json_number(v) >= a->min && json_number(v) <= a->max;
    case ARG_TYPE_DOUBLE:
        return json_number(v) >= a->min && json_number(v) <= a->max;
    case ARG_TYPE_CHOICE:
        return choice_of(a, v) >= 0;
    case ARG_TYPE_STRING:
        // null is what a string that was not given is written as; one with a default has a value
        return v->type == JSON_STRING || (v->type == JSON_NULL && *a->string == NULL);
    case ARG_TYPE_POSITIONAL:
    case ARG_TYPE_REST:
    case ARG_TYPE_HEADING:
        break;
    }
    return false;
}

static bool has_value(const Arg *a, const JsonNode *v)
{
    switch (a->type) {
    case ARG_TYPE_INT:
        return *a->integer == v->integer;
    case ARG_TYPE_DOUBLE:
        return *a->real == json_number(v);
    case ARG_TYPE_CHOICE:
        return *a->choice == choice_of(a, v);
    case ARG_TYPE_STRING:
        return same_text(*a->string, v->type == JSON_STRING ? v->string : NULL);
    default:
        return *a->flag == v->boolean;
    }
}

static void set_value(Arg *a, const JsonNode *v)
{
    a->given = true;
    switch (a->type) {
    case ARG_TYPE_INT:
        *a->integer = v->integer;
        break;
    case ARG_TYPE_DOUBLE:
        *a->real = json_number(v);
        break;
    case ARG_TYPE_CHOICE:
        *a->choice = choice_of(a, v);
        break;
    case ARG_TYPE_STRING:
        *a->string = v->type == JSON_STRING ? v->string : NULL;
        break;
    default:
        *a->flag = v->boolean;
    }
}

// " --lr 0.5": the option as one would type it.
static void append_option(const Arg *a, char *text, size_t size)
{
    const size_t used = strlen(text);
    char *to = text + used;
    const size_t left = size - used;
    switch (a->type) {
    case ARG_TYPE_INT:
        snprintf(to, left, " --%s %lld", a->name, (long long)*a->integer);
        break;
    case ARG_TYPE_DOUBLE:
        snprintf(to, left, " --%s %g", a->name, *a->real);
        break;
    case ARG_TYPE_CHOICE:
        snprintf(to, left, " --%s %s", a->name, a->choices[*a->choice]);
        break;
    case ARG_TYPE_STRING:
        snprintf(to, left, " --%s %s", a->name, *a->string ? *a->string : "(none)");
        break;
    default:
        snprintf(to, left, " --%s %s", a->name, *a->flag ? "on" : "off");
    }
}

int args_numbers(const char *name, const char *text, int64_t min, int64_t max, int64_t *number,
                 int room)
{
    int count = 0;
    if (strcmp(text, "none") == 0) return 0;
    for (const char *p = text; *p;) {
        char *end;
        errno = 0;
        const long long n = strtoll(p, &end, 10);
        if (*p < '0' || *p > '9' || errno || n < min || n > max ||
            (*end != '\0' && (*end != ',' || end[1] == '\0')) || count == room)
            die(STATUS_USAGE,
                "--%s '%s': expected up to %d numbers from %lld to %lld such as 512,512, or none",
                name, text, room, (long long)min, (long long)max);
        number[count++] = n;
        p = *end ? end + 1 : end;
    }
    return count;
}

int args_restore(Arg *table, size_t n, const JsonNode *run, ArgResume (*kind)(const char *name),
                 const char *source, Error *e)
{
    char here[300] = "", there[300] = "";
    for (size_t i = 0; i < n; i++) {
        Arg *a = &table[i];
        if (!is_option(a) || kind(a->name) == ARG_ASIDE) continue;
        if (a->given && kind(a->name) == ARG_FREE) continue;
        char key[MAX_NAME];
        json_key(a, key);
        const JsonNode *v = json_get(run, key);
        if (!v) continue; // an option that is newer than the run
        if (!is_value(a, v))
            return fail(e, STATUS_DATA, "%s: the value of --%s is none it can have", source,
                        a->name);
        const bool differs = a->given && !has_value(a, v);
        if (differs) append_option(a, here, sizeof here);
        set_value(a, v);
        if (differs) append_option(a, there, sizeof there);
    }
    if (!here[0]) return STATUS_OK;
    return fail(e, STATUS_DATA, "%s was begun with%s: it cannot go on with%s; leave that out",
                source, there, here);
}
