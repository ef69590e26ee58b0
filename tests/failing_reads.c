/* Makes the n-th read of some files fail in a program that this is preloaded into: FAIL_FILES is a part
 * of their paths, FAIL_NTH counts from 0, FAIL_ERROR is an errno. Each such read is counted by a byte in
 * the file FAIL_COUNT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef ssize_t (*reader)(int, void *, size_t, off64_t);

/* Whether this read is the one that fails. */
static int fails(int fd)
{
    static int count = 0;
    const char *part = getenv("FAIL_FILES"), *nth = getenv("FAIL_NTH"), *counted = getenv("FAIL_COUNT");
    char link[64], path[4096];
    if (!part || !nth || !counted)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (!strstr(path, part))
        return 0;
    int number = __sync_fetch_and_add(&count, 1);
    int file = open(counted, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file >= 0) {
        if (write(file, ".", 1) != 1)
            abort();
        close(file);
    }
    return number == atoi(nth);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset)
{
    static reader real;
    if (!real)
        real = (reader)dlsym(RTLD_NEXT, "pread64");
    if (fails(fd)) {
        const char *error = getenv("FAIL_ERROR");
        errno = error ? atoi(error) : EIO;
        return -1;
    }
    return real(fd, bytes, length, offset);
}
