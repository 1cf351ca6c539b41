#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mounts.h"

#include <cmocka.h> // last: it defines a macro fail()

static const char wsl[] = "none /mnt/wsl tmpfs rw,relatime 0 0\n"
                          "/dev/sdc / ext4 rw,relatime 0 0\n"
                          "C:\\134 /mnt/c 9p rw,aname=drvfs;path=C:\\;uid=1000 0 0\n"
                          "D: /mnt/d drvfs rw,noatime 0 0\n"
                          "E: /mnt/e virtiofs rw 0 0\n"
                          "tmpfs /mnt/c/linux tmpfs rw 0 0\n";
static const char native[] = "/dev/sda1 / ext4 rw 0 0\nshare /srv 9p rw,trans=virtio 0 0";

static void test_data_on_mnt_c(void **state)
{
    static const struct {
        const char *mounts, *path;
        bool in_wsl, drive;
    } cases[] = {
        {wsl, "/mnt/c/Users/me/photos", true, true},
        {wsl, "/mnt/c", true, true},
        {wsl, "/mnt/d/photos", true, true},
        {wsl, "/mnt/e/photos", true, true},
        {wsl, "/mnt/e/photos", false, false},
        {wsl, "/mnt/c/photos", false, true}, // a container inside WSL
        {wsl, "/mnt/cc", true, false},
        {wsl, "/mnt/c/linux/photos", true, false},
        {wsl, "/home/me/photos", true, false},
        {wsl, "/", true, false},
        {native, "/srv/photos", false, false},
        {native, "/home/me", false, false},
        {"", "/home/me", true, false},
        {"\n\nx", "/home/me", true, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (on_windows_drive_from(cases[i].mounts, cases[i].path, cases[i].in_wsl) !=
            cases[i].drive)
            fail_msg("case %zu: %s", i, cases[i].path);
    assert_false(on_windows_drive("/no/such/path"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_data_on_mnt_c)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
