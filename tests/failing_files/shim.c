/* Fails one file call of a process, or all from one on, below a folder. Loaded by LD_PRELOAD.
 *
 * Environment, read at each call, so that a forked process may set it:
 *   FAIL_BELOW  folder; calls on other files pass. Nothing happens without it.
 *   FAIL_LOG    file to which each call is appended as "NAME PATH".
 *   FAIL_AT     number of the call that fails, from 1.
 *   FAIL_ERRNO  its error number.
 *   FAIL_ALL    if set, all calls from FAIL_AT on fail.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long calls = 0;
static pid_t counted = 0;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* Returns 1, with errno set, if this call has to fail. */
static int fails(const char *name, const char *path) {
    const char *below = getenv("FAIL_BELOW");
    if (!below || !path || strncmp(path, below, strlen(below))) return 0;
    pthread_mutex_lock(&mutex);
    if (counted != getpid()) {
        counted = getpid();
        calls = 0;
    }
    long number = ++calls;
    const char *log = getenv("FAIL_LOG");
    if (log) {
        int file = REAL(open)(log, O_WRONLY | O_APPEND | O_CREAT, 0644);
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s %s\n", name, path);
        if (file >= 0) {
            if (REAL(write)(file, line, length) != length) abort();
            REAL(close)(file);
        }
    }
    pthread_mutex_unlock(&mutex);
    const char *at = getenv("FAIL_AT");
    if (!at || number < atol(at) || (number > atol(at) && !getenv("FAIL_ALL"))) return 0;
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

/* The path that a call names, absolute. */
static const char *full(int folder, const char *path, char *buffer) {
    if (!path) return NULL;
    if (path[0] == '/') return path;
    char start[PATH_MAX];
    if (folder == AT_FDCWD) {
        if (!getcwd(start, sizeof start)) return NULL;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, start, sizeof start - 1);
        if (length < 0) return NULL;
        start[length] = 0;
    }
    snprintf(buffer, 2 * PATH_MAX, "%s/%s", start, path);
    return buffer;
}

static int fd_fails(const char *name, int file) {
    if (!getenv("FAIL_BELOW")) return 0;
    char link[64], path[PATH_MAX];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(name, path);
}

static int path_fails(const char *name, int folder, const char *path) {
    if (!getenv("FAIL_BELOW")) return 0;
    char buffer[2 * PATH_MAX];
    int saved = errno;
    const char *absolute = full(folder, path, buffer);
    errno = saved;
    return fails(name, absolute);
}

#define MODE(flags, last)                                   \
    mode_t mode = 0;                                        \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                \
        va_list more;                                       \
        va_start(more, last);                               \
        mode = va_arg(more, mode_t);                        \
        va_end(more);                                       \
    }

#define OPEN(name)                                                            \
    int name(const char *path, int flags, ...) {                              \
        MODE(flags, flags)                                                    \
        if (path_fails("open", AT_FDCWD, path)) return -1;                    \
        return REAL(name)(path, flags, mode);                                 \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                          \
    int name(int folder, const char *path, int flags, ...) {                  \
        MODE(flags, flags)                                                    \
        if (path_fails("open", folder, path)) return -1;                      \
        return REAL(name)(folder, path, flags, mode);                         \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                           \
    FILE *name(const char *path, const char *how) {                           \
        if (path_fails("open", AT_FDCWD, path)) return NULL;                  \
        return REAL(name)(path, how);                                         \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define ON_FILE(result, name, parameters, ...)                                \
    result name parameters {                                                  \
        if (fd_fails(#name, file)) return -1;                                 \
        return REAL(name)(__VA_ARGS__);                                       \
    }
ON_FILE(ssize_t, write, (int file, const void *data, size_t size), file, data, size)
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), file, data, size, at)
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), file, data, size, at)
ON_FILE(ssize_t, writev, (int file, const struct iovec *parts, int count), file, parts, count)
ON_FILE(ssize_t, pwritev, (int file, const struct iovec *parts, int count, off_t at), file, parts, count, at)
ON_FILE(int, fsync, (int file), file)
ON_FILE(int, fdatasync, (int file), file)
ON_FILE(int, ftruncate, (int file, off_t size), file, size)
ON_FILE(int, ftruncate64, (int file, off64_t size), file, size)

#define ON_PATH(name, parameters, ...)                                        \
    int name parameters {                                                     \
        if (path_fails(#name, AT_FDCWD, path)) return -1;                     \
        return REAL(name)(__VA_ARGS__);                                       \
    }
ON_PATH(rename, (const char *path, const char *other), path, other)
ON_PATH(unlink, (const char *path), path)
ON_PATH(rmdir, (const char *path), path)
ON_PATH(mkdir, (const char *path, mode_t mode), path, mode)

#define AT_PATH(name, parameters, ...)                                        \
    int name parameters {                                                     \
        if (path_fails(#name, folder, path)) return -1;                       \
        return REAL(name)(__VA_ARGS__);                                       \
    }
AT_PATH(renameat, (int folder, const char *path, int other_folder, const char *other), folder, path, other_folder, other)
AT_PATH(renameat2, (int folder, const char *path, int other_folder, const char *other, unsigned flags), folder, path,
        other_folder, other, flags)
AT_PATH(unlinkat, (int folder, const char *path, int flags), folder, path, flags)
AT_PATH(mkdirat, (int folder, const char *path, mode_t mode), folder, path, mode)
