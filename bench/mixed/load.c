/* The mixed load: 90 % small GETs, 5 % answers of 1 MiB, 3 % uploads, 2 % small GETs on a new connection.

   load PORT RATE SECONDS CONNECTIONS SEED < the three requests, one after the other, each behind its length in a line

   RATE > 0: open loop. Request n is due at n / RATE whatever became of those before it, and its time is counted from
   when it was due: a proxy that stops for 50 ms makes late all that was to be sent meanwhile. A due request takes an idle
   connection (the one used last), or dials. RATE 0: closed loop, CONNECTIONS requests always in flight, for capacity.

   A kept connection that is closed before the first byte of an answer is what a reload does: the request is sent once
   more on a new connection, its time goes on, `retried` counts it. All else that is not a 200 in full is `failed`, and
   its time counts, too. Times fall into buckets of 1/128 of a power of two (0.8 %), by kind. JSON on standard output.
   The answers' heads must have a Content-Length; of bodies only the length is looked at, the kernel drops them. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SMALL, LARGE, UPLOAD, FRESH, KINDS };
static const char *const NAMES[KINDS] = {"small", "large", "upload", "new_connection"};
enum { CONNS = 8192, HEAD = 8192, EVENTS = 256, SLOWEST = 32, BUCKETS = 64 << 7, WAITING = 1 << 20, DRAIN_S = 10 };

typedef struct { uint64_t due; int kind; int tried; } Request;
typedef struct {
    int fd, busy, used, got, last;      /* used: answered before; got: of the head; last: to be closed after this */
    Request request;
    size_t sent;
    int64_t body;                       /* bytes still to come; -1: the head is not complete */
    char head[HEAD];
} Conn;

static Conn conns[CONNS];
static int idle[CONNS], idle_count, spare[CONNS], spare_count;
static Request waiting[WAITING];
static uint64_t waiting_first, waiting_end;
static char *requests[3];
static size_t lengths[3];
static uint64_t counts[KINDS][BUCKETS], begun, ends, done, failed, retried, dialled, busy_count, late_max;
static struct { uint64_t ns, at; int kind; } slowest[SLOWEST];
static int epoll, closed_loop;
static struct sockaddr_in address;
static uint64_t seed;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) { perror(what); exit(1); }

static int next_kind(void) {
    seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
    unsigned percent = (unsigned)((seed >> 11) % 100);
    return percent < 90 ? SMALL : percent < 95 ? LARGE : percent < 98 ? UPLOAD : FRESH;
}

static int bucket(uint64_t ns) {        /* below 128 exact, then 128 to a power of two */
    if (ns < 128) return (int)ns;
    int shift = 63 - __builtin_clzll(ns) - 7;
    return ((shift + 1) << 7) + (int)((ns >> shift) & 127);
}

static uint64_t bucket_low(int number) {
    return number < 128 ? (uint64_t)number : (uint64_t)(128 + (number & 127)) << ((number >> 7) - 1);
}

static void record(const Request *request, int ok) {
    uint64_t ns = now_ns() - request->due;
    counts[request->kind][bucket(ns)]++;
    done++;
    failed += !ok;
    int least = 0;
    for (int i = 1; i < SLOWEST; i++) if (slowest[i].ns < slowest[least].ns) least = i;
    if (ns > slowest[least].ns) {
        slowest[least].ns = ns;
        slowest[least].at = request->due > begun ? request->due - begun : 0;
        slowest[least].kind = request->kind;
    }
}

static void drop(Conn *conn) {
    close(conn->fd);
    conn->fd = -1;
    conn->busy = 0;
    spare[spare_count++] = (int)(conn - conns);
}

static Conn *dial(void) {
    if (!spare_count) return NULL;
    Conn *conn = &conns[spare[--spare_count]];
    int one = 1;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) die("socket");
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conn->busy = conn->used = 0;
    if (connect(conn->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) die("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event) < 0) die("epoll_ctl");
    dialled++;
    return conn;
}

static void broken(Conn *conn);

static void push(Conn *conn) {
    int which = conn->request.kind == FRESH ? SMALL : conn->request.kind;
    while (conn->sent < lengths[which]) {
        ssize_t count = send(conn->fd, requests[which] + conn->sent, lengths[which] - conn->sent, MSG_NOSIGNAL);
        if (count < 0) {
            if (errno != EAGAIN && errno != ENOTCONN && conn->body < 0 && !conn->got) broken(conn);
            return;                     /* an early answer may still be read */
        }
        conn->sent += (size_t)count;
    }
}

static void begin(Conn *conn, Request request) {
    conn->request = request;
    conn->busy = 1;
    conn->got = conn->last = 0;
    conn->sent = 0;
    conn->body = -1;
    busy_count++;
    push(conn);
}

static int start(Request request) {     /* 0: there is no connection to be had */
    Conn *conn = NULL;
    if (request.kind != FRESH && !request.tried && idle_count) conn = &conns[idle[--idle_count]];
    else conn = dial();
    if (!conn) return 0;
    begin(conn, request);
    return 1;
}

static void ask(Request request) {
    if (waiting_end != waiting_first || !start(request)) {
        if (waiting_end - waiting_first == WAITING) { fprintf(stderr, "too many requests wait\n"); exit(1); }
        waiting[waiting_end++ % WAITING] = request;
    }
}

static void more(void) {
    while (waiting_first != waiting_end && start(waiting[waiting_first % WAITING])) waiting_first++;
}

static void again(void) {               /* closed loop: the next one takes the place of one that is over */
    uint64_t now = now_ns();
    if (closed_loop && now < ends) ask((Request){now, next_kind(), 0});
}

static void broken(Conn *conn) {
    Request request = conn->request;
    int once_more = conn->used && !conn->got && !request.tried;
    busy_count--;
    drop(conn);
    if (once_more) {
        retried++;
        request.tried = 1;
        ask(request);
    } else {
        record(&request, 0);
        again();
    }
}

static void answered(Conn *conn) {
    int which = conn->request.kind == FRESH ? SMALL : conn->request.kind;
    int whole = conn->sent == lengths[which];
    record(&conn->request, !memcmp(conn->head, "HTTP/1.1 200", 12) && whole);
    busy_count--;
    conn->busy = 0;
    conn->used = 1;
    if (conn->last || conn->request.kind == FRESH || !whole) drop(conn);
    else idle[idle_count++] = (int)(conn - conns);
    more();
    again();
}

static void read_head(Conn *conn) {
    conn->head[conn->got] = 0;
    char *end = strstr(conn->head, "\r\n\r\n");
    if (!end) return;
    end += 4;
    conn->body = 0;
    for (char *line = strstr(conn->head, "\r\n"); line && line < end - 4; line = strstr(line + 2, "\r\n")) {
        if (!strncasecmp(line + 2, "content-length:", 15)) conn->body = atoll(line + 17);
        if (!strncasecmp(line + 2, "connection: close", 17)) conn->last = 1;
    }
    conn->body -= conn->got - (end - conn->head);
}

static void pull(Conn *conn) {
    for (;;) {
        ssize_t count;
        if (conn->body < 0) {
            count = recv(conn->fd, conn->head + conn->got, (size_t)(HEAD - 1 - conn->got), 0);
            if (count > 0) {
                conn->got += (int)count;
                read_head(conn);
                if (conn->body < 0 && conn->got == HEAD - 1) { broken(conn); return; }
            }
        } else {
            count = recv(conn->fd, NULL, (size_t)conn->body, MSG_TRUNC);
            if (count > 0) conn->body -= count;
        }
        if (count < 0 && errno == EAGAIN) return;
        if (count <= 0) { broken(conn); return; }
        if (conn->body == 0) { answered(conn); return; }
    }
}

static void happened(Conn *conn, uint32_t events) {
    if (conn->fd < 0) return;
    if (!conn->busy) {                  /* idle: anything but "may be written" is its end */
        if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
        for (int i = 0; i < idle_count; i++) if (idle[i] == conn - conns) {
            memmove(idle + i, idle + i + 1, (size_t)(--idle_count - i) * sizeof *idle);
            char byte;
            if (recv(conn->fd, &byte, 1, 0) < 0 && errno == EAGAIN) idle[idle_count++] = (int)(conn - conns);
            else drop(conn);
            return;
        }
        return;
    }
    if (events & EPOLLOUT) push(conn);
    if (conn->fd >= 0 && conn->busy && events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) pull(conn);
}

static void read_requests(void) {
    for (int i = 0; i < 3; i++) {
        if (scanf("%zu", &lengths[i]) != 1 || getchar() != '\n') die("a length");
        requests[i] = malloc(lengths[i]);
        if (!requests[i] || fread(requests[i], 1, lengths[i], stdin) != lengths[i]) die("a request");
    }
}

static void print(double seconds) {
    printf("{\"seconds\": %.6f, \"done\": %lu, \"failed\": %lu, \"retried\": %lu, \"dialled\": %lu, \"late_max_us\": %lu,",
           seconds, done, failed, retried, dialled, late_max / 1000);
    printf(" \"histograms\": {");
    for (int kind = 0; kind < KINDS; kind++) {
        printf("%s\"%s\": [", kind ? ", " : "", NAMES[kind]);
        const char *comma = "";
        for (int i = 0; i < BUCKETS; i++) if (counts[kind][i]) {
            printf("%s[%lu, %lu]", comma, bucket_low(i), counts[kind][i]);
            comma = ", ";
        }
        printf("]");
    }
    printf("}, \"slowest\": [");
    const char *comma = "";
    for (int i = 0; i < SLOWEST; i++) if (slowest[i].ns) {
        printf("%s[%.4f, %lu, \"%s\"]", comma, (double)slowest[i].at / 1e9, slowest[i].ns / 1000, NAMES[slowest[i].kind]);
        comma = ", ";
    }
    printf("]}\n");
}

int main(int argc, char **argv) {
    if (argc != 6) { fprintf(stderr, "load PORT RATE SECONDS CONNECTIONS SEED\n"); return 2; }
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    double rate = atof(argv[2]);
    uint64_t seconds = (uint64_t)atoi(argv[3]), sent = 0;
    int connections = atoi(argv[4]);
    seed = strtoull(argv[5], NULL, 10) * 0x9E3779B97F4A7C15u | 1;
    closed_loop = rate <= 0;
    signal(SIGPIPE, SIG_IGN);
    read_requests();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = CONNS - 1; i >= 0; i--) { conns[i].fd = -1; spare[spare_count++] = i; }
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event tick = {.events = EPOLLIN, .data.ptr = NULL};
    if (timer < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &tick) < 0) die("timerfd");
    for (int i = 0; i < connections && !closed_loop; i++) idle[idle_count++] = (int)(dial() - conns);
    usleep(200000);                     /* they are all open before the first request is due */
    begun = now_ns();
    ends = begun + seconds * 1000000000u;
    for (int i = 0; i < connections && closed_loop; i++) again();
    uint64_t total = closed_loop ? 0 : (uint64_t)(rate * (double)seconds), give_up = ends + DRAIN_S * 1000000000ull;
    for (;;) {
        uint64_t now = now_ns(), due = begun + (uint64_t)((double)sent / rate * 1e9);
        while (sent < total && due <= now) {
            if (now - due > late_max) late_max = now - due;
            ask((Request){due, next_kind(), 0});
            due = begun + (uint64_t)((double)++sent / rate * 1e9);
            now = now_ns();
        }
        if (now > give_up || (now >= ends && sent >= total && !busy_count && waiting_first == waiting_end)) break;
        uint64_t wake = sent < total ? due : now + 50000000u;
        struct itimerspec at = {.it_value = {(time_t)(wake / 1000000000u), (long)(wake % 1000000000u)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, 1000);
        for (int i = 0; i < count; i++) if (events[i].data.ptr) happened(events[i].data.ptr, events[i].events);
    }
    double took = (double)(now_ns() - begun) / 1e9;
    for (int i = 0; i < CONNS; i++) if (conns[i].fd >= 0 && conns[i].busy) record(&conns[i].request, 0);
    for (; waiting_first != waiting_end; waiting_first++) record(&waiting[waiting_first % WAITING], 0);
    print(took);
    return 0;
}
