/* What people are told. */
#include "file.h"

const char *sg_file_why(sg_file_error error) {
    switch (error) {
    case SG_FILE_OK:
        return "is open";
    case SG_FILE_NOT_REGULAR:
        return "is not a regular file: give the path of a file, or one where there is nothing yet";
    case SG_FILE_LINK:
        return "is a symbolic link, which is not followed: give the path that it leads to, if "
               "that is yours";
    case SG_FILE_NOT_OURS:
        return "belongs to another user: give another path, or run all workers as one user";
    case SG_FILE_OPEN_TO_OTHERS:
        return "can be read or written by other users: remove it when no process uses it, or "
               "chmod it to 0600";
    case SG_FILE_HARD_LINKS:
        return "has a second name (a hard link): remove that, or the file when no process uses "
               "it";
    case SG_FILE_TOO_SMALL:
        return "cannot be made as small as size= says: give 4MB at least";
    case SG_FILE_TOO_LARGE:
        return "cannot be made as large as size= says: give 1TB at most";
    case SG_FILE_UNEVEN:
        return "cannot be made of the size that size= says: give a multiple of 4096 bytes";
    case SG_FILE_OTHER_MAGIC:
        return "is not a file of sluicegate: give another path, or remove the file if nothing "
               "needs it";
    case SG_FILE_OTHER_VERSION:
        return "was made by another version of sluicegate: run one version in all workers, or "
               "remove the file when no process uses it";
    case SG_FILE_OTHER_LAYOUT:
        return "was made by another build or version of sluicegate, which lays it out "
               "differently: run the same in all workers, or remove the file when no process "
               "uses it";
    case SG_FILE_OTHER_SIZE:
        return "has its size from who made it, and size= says another: leave size= away, give "
               "its size, or remove the file when no process uses it";
    case SG_FILE_OTHER_NAMESPACE:
        return "was made in another namespace of processes (another container), where a process "
               "that dies cannot be seen from here: give each container a path of its own, let "
               "them share one (docker run --pid), or remove the file when no process uses it";
    case SG_FILE_CUT:
        return "is shorter or longer than its header says, so something else has changed it: "
               "remove it when no process uses it";
    case SG_FILE_NO_SPACE:
        return "finds no space: the file system (a tmpfs, perhaps) or a quota is full, so give a "
               "smaller size= or make room";
    case SG_FILE_NO_DIRECTORY:
        return "is in a directory that does not exist: make the directory, or give another path";
    case SG_FILE_NO_PERMISSION:
        return "may not be opened or made by this user: give a path in a directory that the user "
               "may write to";
    case SG_FILE_ABSENT:
        return "is not there, or is from before the last boot, and is made by whoever has limiters "
               "in it: start that first, or give the path that it gives";
    case SG_FILE_SYSTEM:
        break;
    }
    return "could not be opened, and the system says why: see its error";
}
