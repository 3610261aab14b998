// A slow disk, for `rows/slow.py`: loaded before libc (LD_PRELOAD), it lets each sync take SLOW_SYNC_US microseconds longer, which is
// what a memory card or a busy disk adds. Everything else stays as it is.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int slowly(const char *name, int file) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *text = getenv("SLOW_SYNC_US");
    long us = text ? strtol(text, NULL, 10) : 0;
    struct timespec rest = {us / 1000000, us % 1000000 * 1000};
    int result = sync(file);
    while (nanosleep(&rest, &rest) != 0) {
    }
    return result;
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }
