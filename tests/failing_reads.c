/* Makes reads of some files fail in a program that this is preloaded into. FAIL_FILES is a part of their
 * paths. FAIL_BY is a file that says which of them fail from the time that it is there: "all", each; "one N
 * ERRNO", the N-th, counted from 0, and it is removed then. With an errno of 0 the file seems to end there.
 * Each read that has failed is a byte in the file of that name with ".failed" behind it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef ssize_t (*reader)(int, void *, size_t, off64_t);

/* The errno that this read fails with; 0: the file seems to end here; -1: it does not fail. */
static int fails(int fd)
{
    static int count = 0;
    const char *part = getenv("FAIL_FILES"), *by = getenv("FAIL_BY");
    char link[64], path[4096], said[64];
    if (!part || !by)
        return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return -1;
    path[length] = 0;
    if (!strstr(path, part))
        return -1;
    int file = open(by, O_RDONLY);
    if (file < 0)
        return -1;
    length = read(file, said, sizeof said - 1);
    close(file);
    if (length <= 0)
        return -1;
    said[length] = 0;
    int number = __sync_fetch_and_add(&count, 1), nth, error = -1;
    if (!strcmp(said, "all"))
        error = EIO;
    else if (sscanf(said, "one %d", &nth) == 1 && nth == number && sscanf(said, "one %*d %d", &error) == 1)
        unlink(by);
    if (error >= 0) {
        snprintf(path, sizeof path, "%s.failed", by);
        file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (file < 0 || write(file, ".", 1) != 1)
            abort();
        close(file);
    }
    return error;
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset)
{
    static reader real;
    if (!real)
        real = (reader)dlsym(RTLD_NEXT, "pread64");
    int error = fails(fd);
    if (error == 0)
        return 0;
    if (error > 0) {
        errno = error;
        return -1;
    }
    return real(fd, bytes, length, offset);
}
