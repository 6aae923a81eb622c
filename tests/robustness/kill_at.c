/* A shim for LD_PRELOAD that kills the process at a file operation.

   KILL_UNDER: only operations on paths below this folder count.
   KILL_AT: the process is killed just before operation number KILL_AT, counted from 1; 0 for never.
   KILL_LOG: a file that receives one character for each counted operation.

   Operations: opening a file for writing, writing to it, renaming, linking, creating and deleting. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long operations = 0;
static char counted[MAX_FD]; /* whether a descriptor belongs to a counted file */

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_under(int folder, const char *path) {
  const char *root = getenv("KILL_UNDER");
  char full[PATH_MAX * 2];
  if (!root || !path) return 0;
  if (path[0] == '/') {
    snprintf(full, sizeof full, "%s", path);
  } else if (folder == AT_FDCWD) {
    if (!getcwd(full, PATH_MAX)) return 0;
    strncat(full, "/", 2);
    strncat(full, path, PATH_MAX - 1);
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, full, PATH_MAX - 1);
    if (length < 0) return 0;
    full[length] = 0;
    strncat(full, "/", 2);
    strncat(full, path, PATH_MAX - 1);
  }
  return strncmp(full, root, strlen(root)) == 0;
}

static void operation(void) {
  pthread_mutex_lock(&lock);
  operations++;
  const char *at = getenv("KILL_AT"), *log = getenv("KILL_LOG");
  if (log) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0) {
      syscall(SYS_write, fd, ".", 1);
      syscall(SYS_close, fd);
    }
  }
  if (at && operations == atol(at)) kill(getpid(), SIGKILL);
  pthread_mutex_unlock(&lock);
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT); }

static int opened(int fd, int is_counted) {
  if (fd >= 0 && fd < MAX_FD) counted[fd] = (char)is_counted;
  return fd;
}

#define OPEN(name)                                                          \
  int name(const char *path, int flags, ...) {                              \
    va_list more;                                                           \
    va_start(more, flags);                                                  \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, int) : 0;  \
    va_end(more);                                                           \
    int is_counted = writes(flags) && is_under(AT_FDCWD, path);             \
    if (is_counted) operation();                                            \
    return opened(NEXT(name)(path, flags, mode), is_counted);               \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                        \
  int name(int folder, const char *path, int flags, ...) {                  \
    va_list more;                                                           \
    va_start(more, flags);                                                  \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, int) : 0;  \
    va_end(more);                                                           \
    int is_counted = writes(flags) && is_under(folder, path);               \
    if (is_counted) operation();                                            \
    return opened(NEXT(name)(folder, path, flags, mode), is_counted);       \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                         \
  FILE *name(const char *path, const char *mode) {                          \
    int is_counted = strpbrk(mode, "wa+") && is_under(AT_FDCWD, path);      \
    if (is_counted) operation();                                            \
    FILE *file = NEXT(name)(path, mode);                                    \
    if (file) opened(fileno(file), is_counted);                             \
    return file;                                                            \
  }
FOPEN(fopen)
FOPEN(fopen64)

static int is_counted_fd(int fd) { return fd >= 0 && fd < MAX_FD && counted[fd]; }

ssize_t write(int fd, const void *data, size_t size) {
  if (is_counted_fd(fd)) operation();
  return NEXT(write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  if (is_counted_fd(fd)) operation();
  return NEXT(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  if (is_counted_fd(fd)) operation();
  return NEXT(pwrite64)(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (is_counted_fd(fd)) operation();
  return NEXT(writev)(fd, parts, count);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  if (is_counted_fd(fileno(file))) operation();
  return NEXT(fwrite)(data, size, count, file);
}
int fclose(FILE *file) {
  int fd = fileno(file);
  if (is_counted_fd(fd)) operation();
  opened(fd, 0);
  return NEXT(fclose)(file);
}
int close(int fd) {
  opened(fd, 0);
  return NEXT(close)(fd);
}

int rename(const char *from, const char *to) {
  if (is_under(AT_FDCWD, to)) operation();
  return NEXT(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
  if (is_under(b, to)) operation();
  return NEXT(renameat)(a, from, b, to);
}
int unlink(const char *path) {
  if (is_under(AT_FDCWD, path)) operation();
  return NEXT(unlink)(path);
}
int unlinkat(int folder, const char *path, int flags) {
  if (is_under(folder, path)) operation();
  return NEXT(unlinkat)(folder, path, flags);
}
int rmdir(const char *path) {
  if (is_under(AT_FDCWD, path)) operation();
  return NEXT(rmdir)(path);
}
int mkdir(const char *path, mode_t mode) {
  if (is_under(AT_FDCWD, path)) operation();
  return NEXT(mkdir)(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
  if (is_under(folder, path)) operation();
  return NEXT(mkdirat)(folder, path, mode);
}
