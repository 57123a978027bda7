/* Refusals that are remembered for a while, so that who floods is refused without a question.
 *
 * What a server replied of a refused check is kept, and judged again by the time that has passed:
 * the same event is refused for as long as it would be there, if nothing else happened, and at most
 * for the time asked. A bounded cache: of two keys that meet in a place the later one is kept. */
#ifndef SG_DENIED_H
#define SG_DENIED_H

#include "fingerprint.h"
#include "request.h"

#define SG_DENIED_PLACES 4096u
#define SG_DENIED_BYTES 128u /* a longer reply (many quotas, open reservations) is not kept */

typedef struct sg_denied sg_denied;

sg_denied *sg_denied_new(void); /* NULL: no memory */
void sg_denied_free(sg_denied *denied); /* may be NULL */

/* Remembers that the check was refused, until `until_ns`. */
void sg_denied_put(sg_denied *denied, sg_fingerprint fp, const sg_plan *plan,
                   const uint64_t *costs, const char *bytes, size_t length, uint64_t server_us,
                   int64_t now_ns, int64_t until_ns);

/* Whether a check of no smaller costs is known to be refused, and the decision. */
bool sg_denied_get(const sg_denied *denied, sg_fingerprint fp, const sg_plan *plan,
                   const uint64_t *costs, int64_t now_ns, sg_decision *out);

/* Forgets a key: something was given back. */
void sg_denied_forget(sg_denied *denied, sg_fingerprint fp);

#endif
