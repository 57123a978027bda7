/* Commands that are no check: changes of a key, all of a key, slots, several limiters at once, and
 * any words that the Python side wants to say. */
#include "server.h"

#include <stdlib.h>
#include <string.h>

/* ---- replies as objects */

/* The node at *at and what belongs to it; *at is then behind it. */
static PyObject *object_of(const sgpy_state *st, const sg_reply *reply, size_t *at) {
    const sg_node *node = &reply->nodes[(*at)++];
    const char *text = reply->bytes == NULL ? "" : reply->bytes + node->start;
    PyObject *list;
    switch (node->type) {
    case SG_RESP_STRING:
        return PyBytes_FromStringAndSize(text, (Py_ssize_t)node->length);
    case SG_RESP_STATUS:
        return PyUnicode_DecodeUTF8(text, (Py_ssize_t)node->length, "replace");
    case SG_RESP_ERROR: {
        PyObject *said = PyUnicode_DecodeUTF8(text, (Py_ssize_t)node->length, "replace");
        PyObject *error = said == NULL ? NULL : PyObject_CallOneArg(st->StoreError, said);
        Py_XDECREF(said);
        return error;
    }
    case SG_RESP_INTEGER:
        return PyLong_FromLongLong(node->number);
    case SG_RESP_ARRAY:
        list = PyList_New(0);
        for (int64_t i = 0; list != NULL && i < node->number && *at < reply->count; i++) {
            PyObject *item = object_of(st, reply, at);
            if (item == NULL || PyList_Append(list, item) < 0) {
                Py_CLEAR(list);
            }
            Py_XDECREF(item);
        }
        return list;
    default:
        Py_RETURN_NONE;
    }
}

static PyObject *whole_object(const sgpy_state *st, const sg_reply *reply) {
    size_t at = 0;
    return object_of(st, reply, &at);
}

/* ---- what a reply to words comes to */

void sgpy_forget_known(const sgpy_ask *ask) {
    sgpy_server *server = ask->server;
    if (server->denied != NULL) {
        sg_denied_forget(server->denied, ask->fp);
    }
    sgpy_lease_forget(server, ask->fp);
}

static void change_replied(sgpy_ask *ask, const sg_reply *reply) {
    sgpy_forget_known(ask); /* of a check that was sent before it, and answered after that */
    if (reply->nodes[0].type == SG_RESP_INTEGER) {
        sgpy_ask_deliver(ask, Py_NewRef(Py_None));
        return;
    }
    sgpy_ask_raise(ask, SG_FOREIGN, NULL, 0);
    sgpy_ask_deliver(ask, NULL);
}

void sgpy_words_replied(sgpy_ask *ask, const sg_reply *reply) {
    switch (ask->kind) {
    case SGPY_ASK_CHANGE:
        change_replied(ask, reply);
        break;
    case SGPY_ASK_ALL:
        sgpy_all_replied(ask, reply);
        break;
    default:
        sgpy_ask_deliver(ask, whole_object(ask->state, reply));
    }
}

/* ---- making them */

/* An ask of words with an empty command; NULL with MemoryError. */
sgpy_ask *sgpy_words_new(sgpy_state *st, sgpy_ask_kind kind, size_t name_room) {
    sgpy_ask *ask = sgpy_ask_new(st, name_room);
    if (ask == NULL) {
        return NULL;
    }
    ask->kind = (uint8_t)kind;
    ask->request.kind = SG_WORDS;
    ask->request.command = calloc(1, sizeof *ask->request.command);
    if (ask->request.command == NULL) {
        sgpy_ask_free(ask);
        PyErr_NoMemory();
        return NULL;
    }
    return ask;
}

/* The same for one key of a limiter, whose name is written. */
static sgpy_ask *keyed_new(sgpy_limiter *limiter, sgpy_ask_kind kind, PyObject *key) {
    sgpy_server *server = limiter->server;
    if (server == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this limiter has no server to ask");
        return NULL;
    }
    sgpy_plan *plan = sgpy_plan_of(limiter);
    sgpy_ask *ask = plan == NULL ? NULL
                                 : sgpy_words_new(limiter->state, kind,
                                             server->head_length + SG_NAME_ROOM);
    if (ask == NULL) {
        return NULL;
    }
    ask->plan = sgpy_plan_hold(plan);
    if (sgpy_key_read(key, &ask->bytes) < 0) {
        sgpy_ask_free(ask);
        return NULL;
    }
    ask->limiter = (sgpy_limiter *)Py_NewRef((PyObject *)limiter);
    ask->server = (sgpy_server *)Py_NewRef((PyObject *)server);
    ask->key = Py_NewRef(key);
    ask->fp = sg_fingerprint_of(&server->table->secret, ask->bytes.data, ask->bytes.length);
    ask->request.order = &server->order;
    sgpy_ask_write_name(ask, server, &ask->bytes);
    return ask;
}

static void keyed_command(sgpy_ask *ask, sg_script_id script) {
    sg_command *c = ask->request.command;
    const sg_plan *plan = &ask->plan->plan;
    ask->request.script = (int)script;
    sg_command_begin(c, script, 1 + plan->logs);
    sg_command_key(c, ask->request.name, ask->request.name_length);
    sg_command_rings(c, plan, ask->request.name, ask->request.name_length);
}

static PyObject *send_to_server(sgpy_ask *ask) {
    sgpy_limiter *limiter = ask->limiter;
    sgpy_router *router = sgpy_server_router(limiter->server);
    if (router == NULL) {
        sgpy_ask_free(ask);
        return NULL;
    }
    return sgpy_ask_send(ask, router, limiter->timeout_ns);
}

/* ---- changes */

/* What a change of that name is about, put behind the operation; -1 with an exception. */
static int change_argument(sgpy_ask *ask, const char *operation, PyObject *argument) {
    sg_command *c = ask->request.command;
    sgpy_limiter *limiter = ask->limiter;
    uint8_t bytes[SG_ROW_BYTES];
    if (strcmp(operation, "penalize") == 0 || strcmp(operation, "reward") == 0) {
        uint64_t costs[SG_QUOTAS_MAX];
        if (sgpy_cost_row(limiter->state, argument == Py_None ? NULL : argument, limiter->quotas,
                          costs) < 0) {
            return -1;
        }
        sg_command_argument(c, bytes, sg_row_of_change(&ask->plan->plan, costs, bytes));
        return 0;
    }
    if (strcmp(operation, "ban") == 0) {
        sg_ticks length;
        if (sgpy_seconds(argument, "the length of a ban", &length) < 0) {
            return -1;
        }
        const uint64_t us = (length + SG_TICKS_PER_US - 1) / SG_TICKS_PER_US;
        sg_command_argument(c, bytes, sg_ban_argument(us, bytes));
        return 0;
    }
    if (strcmp(operation, "unban") != 0 && strcmp(operation, "reset") != 0) {
        PyErr_Format(PyExc_ValueError, "no change is called %s", operation);
        return -1;
    }
    return 0;
}

PyObject *sgpy_limiter_change(PyObject *op, PyObject *args) {
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    const uint64_t version = limiter->version;
    const char *operation;
    PyObject *key, *argument = Py_None;
    if (!PyArg_ParseTuple(args, "sO|O:_change", &operation, &key, &argument)) {
        return NULL;
    }
    sgpy_ask *ask = keyed_new(limiter, SGPY_ASK_CHANGE, key);
    if (ask == NULL) {
        return NULL;
    }
    keyed_command(ask, SG_SCRIPT_CHANGE);
    sg_command_argument(ask->request.command, ask->plan->plan.bytes, ask->plan->plan.length);
    sg_command_argument(ask->request.command, operation, strlen(operation));
    if (change_argument(ask, operation, argument) < 0) {
        sgpy_ask_free(ask);
        return NULL;
    }
    if (limiter->version != version) {
        PyErr_SetString(PyExc_RuntimeError, "a cost changed the limiter");
        sgpy_ask_free(ask);
        return NULL;
    }
    sgpy_forget_known(ask);
    return send_to_server(ask);
}

PyObject *sgpy_settle(sgpy_limiter *limiter, PyObject *key, PyObject *argument) {
    sgpy_ask *ask = keyed_new(limiter, SGPY_ASK_CHANGE, key);
    if (ask == NULL) {
        return NULL;
    }
    keyed_command(ask, SG_SCRIPT_CHANGE);
    sg_command_argument(ask->request.command, ask->plan->plan.bytes, ask->plan->plan.length);
    sg_command_argument(ask->request.command, "settle", 6);
    sg_command_argument(ask->request.command, PyBytes_AS_STRING(argument),
                        (size_t)PyBytes_GET_SIZE(argument));
    sgpy_forget_known(ask);
    return send_to_server(ask);
}

/* ---- all of a key */

PyObject *sgpy_limiter_fetch(PyObject *op, PyObject *key) {
    sgpy_ask *ask = keyed_new((sgpy_limiter *)op, SGPY_ASK_RAW, key);
    if (ask == NULL) {
        return NULL;
    }
    ask->request.repeatable = true;
    keyed_command(ask, SG_SCRIPT_FETCH);
    return send_to_server(ask);
}

/* The texts of what fetch.lua replied; -1 with StoreError, for a server may reply anything. */
static int read_fetched(const sgpy_state *st, PyObject *fetched, const sg_plan *plan,
                        sg_text *values, uint64_t *now_us) {
    const Py_ssize_t texts = (Py_ssize_t)plan->logs + 1;
    if (!PyList_Check(fetched) || PyList_GET_SIZE(fetched) != texts + 1 ||
        !PyLong_Check(PyList_GET_ITEM(fetched, texts))) {
        goto fail;
    }
    for (Py_ssize_t i = 0; i < texts; i++) {
        PyObject *item = PyList_GET_ITEM(fetched, i);
        if (item != Py_None && !PyBytes_Check(item)) {
            goto fail;
        }
        values[i] = item == Py_None ? (sg_text){NULL, 0}
                                    : (sg_text){PyBytes_AS_STRING(item),
                                                (size_t)PyBytes_GET_SIZE(item)};
    }
    *now_us = PyLong_AsUnsignedLongLong(PyList_GET_ITEM(fetched, texts));
    if (*now_us != UINT64_MAX || !PyErr_Occurred()) {
        return 0;
    }
fail:
    PyErr_SetString(st->StoreError, "the reply is none to what was asked");
    return -1;
}

PyObject *sgpy_limiter_foretell(PyObject *op, PyObject *args) {
    sgpy_limiter *limiter = (sgpy_limiter *)op;
    PyObject *fetched, *given, *costs, *result = NULL;
    sg_text values[SG_QUOTAS_MAX + 1];
    uint64_t now_us, *rows = NULL, row[SG_QUOTAS_MAX];
    sg_ticks wait = 0;
    sg_seen seen;
    if (!PyArg_ParseTuple(args, "OO:_foretell", &fetched, &given)) {
        return NULL;
    }
    costs = PySequence_Tuple(given);
    if (costs == NULL) {
        return NULL;
    }
    const size_t events = (size_t)PyTuple_GET_SIZE(costs);
    PyObject *quotas = Py_NewRef(limiter->quotas);
    const size_t count = (size_t)PyTuple_GET_SIZE(quotas);
    rows = PyMem_Calloc(events * count + 1, sizeof *rows);
    if (rows == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (size_t i = 0; i < events; i++) {
        if (sgpy_cost_row(limiter->state, PyTuple_GET_ITEM(costs, (Py_ssize_t)i), quotas,
                          row) < 0) {
            goto done;
        }
        memcpy(rows + i * count, row, count * sizeof *rows);
    }
    if (limiter->server == NULL || limiter->quotas != quotas) {
        PyErr_SetString(PyExc_RuntimeError, "a cost changed the limiter");
        goto done;
    }
    sgpy_plan *plan = sgpy_plan_of(limiter);
    if (plan == NULL || read_fetched(limiter->state, fetched, &plan->plan, values, &now_us) < 0) {
        goto done;
    }
    const sg_status status = sg_answer_project(&plan->plan, &sg_malloc_allocator, values, now_us,
                                               rows, events, &seen, &wait);
    if (status != SG_OK) {
        PyErr_NoMemory();
    } else if (seen == SG_SEEN_ERROR) {
        PyErr_SetString(limiter->state->StoreError, "the key holds what is not sluicegate's");
    } else {
        result = PyFloat_FromDouble(sgpy_seconds_of(wait));
    }
done:
    PyMem_Free(rows);
    Py_DECREF(quotas);
    Py_DECREF(costs);
    return result;
}

/* ---- any words */

/* Appends a word: bytes, a str, or an int. */
static int append_word(sg_command *c, PyObject *word) {
    if (PyLong_Check(word)) {
        PyObject *text = PyObject_Str(word);
        if (text == NULL) {
            return -1;
        }
        const int result = append_word(c, text);
        Py_DECREF(text);
        return result;
    }
    sgpy_key bytes;
    if (sgpy_key_read(word, &bytes) < 0) {
        return -1;
    }
    sg_command_argument(c, bytes.data, bytes.length);
    sgpy_key_done(&bytes);
    return 0;
}

static int timeout_of(double seconds, int64_t *ns) {
    if (!(seconds > 0 && seconds <= 1e9)) {
        PyErr_SetString(PyExc_ValueError, "a timeout is above 0 and at most 10**9 s");
        return -1;
    }
    *ns = (int64_t)(seconds * 1e9);
    return 0;
}

PyObject *sgpy_link_command(PyObject *op, PyObject *args) {
    sgpy_link *link = (sgpy_link *)op;
    PyObject *given;
    double timeout;
    int repeatable = 0;
    int64_t timeout_ns;
    if (!PyArg_ParseTuple(args, "Od|p:command", &given, &timeout, &repeatable) ||
        timeout_of(timeout, &timeout_ns) < 0) {
        return NULL;
    }
    if (!link->made || link->create_future == NULL) {
        PyErr_SetString(PyExc_RuntimeError, SGPY_NO_LINK);
        return NULL;
    }
    PyObject *words = PySequence_Tuple(given), *future = NULL;
    sgpy_ask *ask = words == NULL ? NULL : sgpy_words_new(link->state, SGPY_ASK_RAW, 0);
    if (ask == NULL) {
        Py_XDECREF(words);
        return NULL;
    }
    ask->request.repeatable = repeatable != 0;
    sg_command_plain(ask->request.command);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(words); i++) {
        if (append_word(ask->request.command, PyTuple_GET_ITEM(words, i)) < 0) {
            goto fail;
        }
    }
    if (PyTuple_GET_SIZE(words) == 0) {
        PyErr_SetString(PyExc_ValueError, "a command has at least one word");
        goto fail;
    }
    future = PyObject_CallNoArgs(link->create_future);
    if (future == NULL) {
        goto fail;
    }
    ask->future = Py_NewRef(future);
    ask->request.deadline_ns = sgpy_now_ns(link->state) + timeout_ns;
    link->patience_ns = timeout_ns > link->patience_ns ? timeout_ns : link->patience_ns;
    if (sgpy_link_add(link, ask) == 0) {
        Py_DECREF(words);
        return future;
    }
    Py_CLEAR(future);
fail:
    sgpy_ask_free(ask);
    Py_DECREF(words);
    return NULL;
}

/* ---- slots */

PyObject *sgpy_server_slots(PyObject *op, PyObject *args) {
    sgpy_server *server = (sgpy_server *)op;
    const char *operation, *owner;
    Py_ssize_t owner_length;
    unsigned long long ttl_us;
    PyObject *keys, *numbers, *key_row = NULL, *number_row = NULL, *future = NULL;
    double timeout;
    int64_t timeout_ns;
    sgpy_ask *ask = NULL;
    uint8_t bytes[8];
    if (!PyArg_ParseTuple(args, "sy#KOOd:slots", &operation, &owner, &owner_length, &ttl_us,
                          &keys, &numbers, &timeout) || timeout_of(timeout, &timeout_ns) < 0) {
        return NULL;
    }
    key_row = PySequence_Tuple(keys);
    number_row = key_row == NULL ? NULL : PySequence_Tuple(numbers);
    if (number_row == NULL) {
        goto done;
    }
    const Py_ssize_t count = PyTuple_GET_SIZE(key_row);
    if (owner_length != 16 || count < 1 || count > (Py_ssize_t)SG_BATCH_MAX ||
        (PyTuple_GET_SIZE(number_row) != 0 && PyTuple_GET_SIZE(number_row) != count)) {
        PyErr_SetString(PyExc_ValueError, "slots takes an owner of 16 bytes, 1 to 256 keys, and a "
                                          "number for each or none");
        goto done;
    }
    ask = sgpy_words_new(server->state, SGPY_ASK_RAW,
                    server->head_length + SG_NAME_ROOM + SG_NAME_ENDING_ROOM);
    if (ask == NULL) {
        goto done;
    }
    sg_command *c = ask->request.command;
    ask->request.script = SG_SCRIPT_SLOTS;
    /* Renewing and counting may be done twice; what takes or gives may not. */
    ask->request.repeatable = strcmp(operation, "renew") == 0 || strcmp(operation, "count") == 0 ||
                              strcmp(operation, "leave") == 0;
    sg_command_begin(c, SG_SCRIPT_SLOTS, (unsigned)count);
    for (Py_ssize_t i = 0; i < count; i++) { /* the last name stays; in a cluster it is the only */
        sgpy_key key;
        if (sgpy_key_read(PyTuple_GET_ITEM(key_row, i), &key) < 0) {
            goto done;
        }
        sgpy_ask_write_name(ask, server, &key);
        sgpy_key_done(&key);
        sg_command_key(c, ask->name, sg_name_slots(ask->name, ask->request.name_length));
    }
    sg_command_argument(c, operation, strlen(operation));
    sg_command_argument(c, owner, (size_t)owner_length);
    sg_command_argument(c, bytes, (size_t)(sg_bytes_put(bytes, ttl_us, 7) - bytes));
    uint8_t row[6 * SG_BATCH_MAX], *end = row;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(number_row); i++) {
        uint64_t number;
        if (sgpy_cost_one(PyTuple_GET_ITEM(number_row, i), &number) < 0) {
            goto done;
        }
        end = sg_bytes_put(end, number, 6);
    }
    sg_command_argument(c, row, (size_t)(end - row));
    if (count == 1) {
        ask->key = Py_NewRef(PyTuple_GET_ITEM(key_row, 0));
    }
    sgpy_router *router = sgpy_server_router(server);
    if (router != NULL) {
        future = sgpy_ask_send(ask, router, timeout_ns);
        ask = NULL;
    }
done:
    if (ask != NULL) {
        sgpy_ask_free(ask);
    }
    Py_XDECREF(key_row);
    Py_XDECREF(number_row);
    return future;
}
