/* Watches which bytes of a folder a program has had synced. Loaded into it with LD_PRELOAD, as RocksDB calls libc
 * from C++, where no Rust code could be in between.
 *
 * For each fsync or fdatasync that succeeded, a line goes to the file that UNDERPASS_SYNCS names:
 *
 *     F <inode> <length>                        a file, as long as it was when the call began
 *     D <inode> <inode>:<name>/<inode>:<name>/  a folder, with what was in it when the call began
 *
 * sync_file_range doesn't count: it promises nothing. A file that is about to be unlinked, or replaced by a rename,
 * gets another link in the folder that UNDERPASS_KEEP names: until its folder is synced, it may be what is there
 * after a crash. (So no inode number comes twice, either.)
 *
 * With UNDERPASS_SYNCS_LOST set, syncs of files that end in its value do nothing and say that all is well.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_BYTES_MAX (256 * 1024)

static int record = -1;
static const char *keep, *lost;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("UNDERPASS_SYNCS");
    keep = getenv("UNDERPASS_KEEP");
    lost = getenv("UNDERPASS_SYNCS_LOST");
    if (path) record = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void *next_of(const char *name) {
    void *next = dlsym(RTLD_NEXT, name);
    if (!next) abort();
    return next;
}

static int is_lost(int fd) {
    char link[64], path[4096];
    if (!lost) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    ssize_t ending = (ssize_t)strlen(lost);
    return length >= ending && memcmp(path + length - ending, lost, ending) == 0;
}

/* What there is to sync, before it is. The caller frees it. */
static char *line_of(int fd, size_t *length) {
    struct stat status;
    if (record < 0 || fstat(fd, &status) != 0) return NULL;
    char *line = malloc(LINE_BYTES_MAX);
    if (!line) abort();
    if (S_ISREG(status.st_mode)) {
        *length = snprintf(line, LINE_BYTES_MAX, "F %llu %lld\n", (unsigned long long)status.st_ino,
                           (long long)status.st_size);
        return line;
    }
    if (!S_ISDIR(status.st_mode)) {
        free(line);
        return NULL;
    }
    size_t at = snprintf(line, LINE_BYTES_MAX, "D %llu ", (unsigned long long)status.st_ino);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    DIR *folder = opendir(link);
    if (!folder) abort();
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        at += snprintf(line + at, LINE_BYTES_MAX - at, "%llu:%s/", (unsigned long long)entry->d_ino, entry->d_name);
        if (at + 512 > LINE_BYTES_MAX) abort();
    }
    closedir(folder);
    line[at++] = '\n';
    *length = at;
    return line;
}

static int synced(int fd, const char *name) {
    if (is_lost(fd)) return 0;
    size_t length = 0;
    char *line = line_of(fd, &length);
    int result = ((int (*)(int))next_of(name))(fd);
    /* One write: lines of several threads don't mix. */
    if (line && result == 0 && write(record, line, length) != (ssize_t)length) abort();
    free(line);
    return result;
}

int fsync(int fd) { return synced(fd, "fsync"); }

int fdatasync(int fd) { return synced(fd, "fdatasync"); }

static void keep_link(const char *path) {
    struct stat status;
    char kept[4096];
    if (!keep || lstat(path, &status) != 0 || !S_ISREG(status.st_mode)) return;
    snprintf(kept, sizeof kept, "%s/%llu", keep, (unsigned long long)status.st_ino);
    link(path, kept);
}

int rename(const char *from, const char *to) {
    keep_link(to);
    return ((int (*)(const char *, const char *))next_of("rename"))(from, to);
}

int unlink(const char *path) {
    keep_link(path);
    return ((int (*)(const char *))next_of("unlink"))(path);
}
