/* Memory that grows by doubling. */
#ifndef SG_ROOM_H
#define SG_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* Room for `need` items of `size` bytes in *memory, which has it for *room. False: no memory, and
 * nothing was changed. */
static inline bool sg_room_for(void **memory, size_t *room, size_t need, size_t size) {
    size_t wanted = *room == 0 ? 16 : *room;
    while (wanted < need)
        wanted *= 2;
    if (wanted == *room)
        return true;
    void *moved = realloc(*memory, wanted * size);
    if (moved == NULL)
        return false;
    *memory = moved;
    *room = wanted;
    return true;
}

#endif
