/* What pipeline.c, pipeline_write.c and pipeline_read.c share. */
#ifndef SG_PIPELINE_PARTS_H
#define SG_PIPELINE_PARTS_H

#include "pipeline.h"

/* A command that was sent. */
struct sg_flight {
    sg_request *first; /* in the order of the reply's elements; NULL: ASKING */
    unsigned count;
    uint32_t text; /* the bit of the script whose text it takes along, or 0 */
};

/* Requests that leave as one command. */
struct sg_group {
    sg_row row;
    uint32_t run;
};

static inline void sg_row_append(sg_row *row, sg_request *r) {
    r->next = NULL;
    if (row->last == NULL)
        row->first = r;
    else
        row->last->next = r;
    row->last = r;
    row->count++;
}

/* Tells the owner that the pipeline is done with it, unless it is held: who holds it does then. */
void sg_pipeline_forget(sg_pipeline *p, sg_request *r);

/* Fails a request that is not over. */
void sg_pipeline_fail(sg_pipeline *p, sg_request *r, sg_failure failure, const char *text,
                      size_t length);
void sg_pipeline_fail_and_forget(sg_pipeline *p, sg_request *r, sg_failure failure,
                                 const char *text, size_t length);
void sg_pipeline_fail_row(sg_pipeline *p, sg_request *first, sg_failure failure, const char *text,
                          size_t length);

/* Puts a row before all that wait for the first time, and behind what was put back before it. */
void sg_pipeline_put_back(sg_pipeline *p, const sg_row *row);

/* The bit of a request's script in `texts`; 0: it has none. */
uint32_t sg_pipeline_text_bit(const sg_request *r);

/* Around calls of the owner in the midst of something: it may end the stream then. */
uint64_t sg_pipeline_begin_handling(sg_pipeline *p);
void sg_pipeline_end_handling(sg_pipeline *p, uint64_t ends);

#endif
