/* stream: bytes as fast as TCP carries them, counted where they arrive. An ordinary program: sockets and epoll.
 *
 *   stream serve PORT                                     answers both of these, many connections at once
 *   stream fetch ADDRESS PORT FLOWS WARM_MS SPAN_MS       the server sends, we count
 *   stream push  ADDRESS PORT FLOWS WARM_MS SPAN_MS       we send, the server counts
 *
 * Who counts prints a line for each connection when its time is over: "flow BYTES NANOSECONDS", the bytes that came in the
 * span after the warm-up, both from the moment the connection stood. Connections end with a reset: nothing of one run is on
 * its way in the next. STREAM_CONGESTION names the congestion control to ask for; what the first connection has got is said
 * in a line "congestion NAME". (Namespaces may refuse by sysctl what root may choose by socket.) */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FLOWS_MAX 4096
#define REQUEST 32
#define BUFFER (256 << 10)
#define PATIENCE_NS 15000000000

enum role { CONNECTING, ASKED, SENDS, COUNTS };

struct flow {
    enum role role, later;
    int64_t from_ns, until_ns, bytes;
    long warm_ms, span_ms;
    char request[REQUEST];
    size_t filled;
};

static struct flow *flows[FLOWS_MAX];
static char buffer[BUFFER];
static int set, live;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int fd, int operation, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.fd = fd };
    if (epoll_ctl(set, operation, fd, &event) != 0)
        fail("epoll_ctl");
}

static void choose_congestion_control(int fd)
{
    static int is_said;
    const char *wanted = getenv("STREAM_CONGESTION");
    char name[16] = "unknown";
    socklen_t len = sizeof name - 1;
    if (wanted != NULL)
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, wanted, strlen(wanted));
    if (is_said)
        return;
    is_said = 1;
    getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len);
    dprintf(1, "congestion %s\n", name);
}

static struct flow *start(int fd, enum role role)
{
    if (fd >= FLOWS_MAX)
        exit(1);
    choose_congestion_control(fd);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    flows[fd] = calloc(1, sizeof(struct flow));
    flows[fd]->role = role;
    live++;
    return flows[fd];
}

static void end(int fd)
{
    struct linger reset = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    free(flows[fd]);
    flows[fd] = NULL;
    live--;
}

static void set_going(int fd, enum role role)
{
    struct flow *flow = flows[fd];
    flow->role = role;
    flow->from_ns = now_ns() + flow->warm_ms * 1000000;
    flow->until_ns = flow->from_ns + flow->span_ms * 1000000;
    watch(fd, EPOLL_CTL_MOD, role == SENDS ? EPOLLOUT | EPOLLIN : EPOLLIN);
}

/* The other end's reset is how a sender ends. */
static void send_more(int fd)
{
    ssize_t n = write(fd, buffer, sizeof buffer);
    if (n < 0 && errno != EAGAIN)
        end(fd);
}

/* True when its time is over and the line is printed. */
static int is_over(int fd)
{
    struct flow *flow = flows[fd];
    if (now_ns() < flow->until_ns)
        return 0;
    dprintf(1, "flow %lld %lld\n", (long long)flow->bytes, (long long)(flow->until_ns - flow->from_ns));
    return 1;
}

static void count_more(int fd)
{
    struct flow *flow = flows[fd];
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        dprintf(1, "cut %lld\n", (long long)flow->bytes);
        end(fd);
        return;
    }
    int64_t now = now_ns();
    if (n > 0 && now >= flow->from_ns && now < flow->until_ns)
        flow->bytes += n;
}

/* The server's first act: what does the client want? */
static void read_request(int fd)
{
    struct flow *flow = flows[fd];
    ssize_t n = read(fd, flow->request + flow->filled, REQUEST - flow->filled);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            end(fd);
        return;
    }
    flow->filled += n;
    if (flow->filled < REQUEST)
        return;
    char what;
    flow->request[REQUEST - 1] = 0;
    if (sscanf(flow->request, "%c %ld %ld", &what, &flow->warm_ms, &flow->span_ms) != 3)
        end(fd);
    else
        set_going(fd, what == 'f' ? SENDS : COUNTS);
}

/* The client's: the connection stands, or it does not. */
static void ask(int fd)
{
    struct flow *flow = flows[fd];
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error != 0 || write(fd, flow->request, REQUEST) != REQUEST) {
        fprintf(stderr, "connect: %s\n", strerror(error ? error : errno));
        exit(1);
    }
    set_going(fd, flow->later);
}

static void step(int fd, uint32_t events)
{
    struct flow *flow = flows[fd];
    if (flow == NULL)
        return;
    switch (flow->role) {
    case CONNECTING: ask(fd); break;
    case ASKED: read_request(fd); break;
    case COUNTS: count_more(fd); break;
    case SENDS:
        if (events & (EPOLLERR | EPOLLHUP | EPOLLIN))
            end(fd);
        else
            send_more(fd);
    }
}

static void end_those_that_are_over(int is_client)
{
    for (int fd = 0; fd < FLOWS_MAX; fd++) {
        struct flow *flow = flows[fd];
        if (flow == NULL || flow->role < SENDS)
            continue;
        /* The client sends until the counting server resets: a request that was lost a few times began its time late. */
        if (flow->role == COUNTS ? is_over(fd) : is_client && now_ns() > flow->until_ns + PATIENCE_NS)
            end(fd);
    }
}

static void run(int listener)
{
    struct epoll_event events[64];
    int64_t looked = 0;
    while (listener >= 0 || live > 0) {
        int n = epoll_wait(set, events, 64, 5);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener)
                step(fd, events[i].events);
            else if ((fd = accept(listener, NULL, NULL)) >= 0) {
                start(fd, ASKED);
                watch(fd, EPOLL_CTL_ADD, EPOLLIN);
            }
        }
        if (now_ns() - looked > 2000000) {
            looked = now_ns();
            end_those_that_are_over(listener < 0);
        }
    }
}

static int make_listener(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 128) != 0)
        fail("listen");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    return fd;
}

static void make_flows(char **argv)
{
    struct sockaddr_in peer = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[3])) };
    inet_pton(AF_INET, argv[2], &peer.sin_addr);
    for (int left = atoi(argv[4]); left > 0; left--) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct flow *flow = start(fd, CONNECTING);
        flow->later = argv[1][0] == 'f' ? COUNTS : SENDS;
        flow->warm_ms = atol(argv[5]);
        flow->span_ms = atol(argv[6]);
        snprintf(flow->request, REQUEST, "%c %ld %ld", argv[1][0], flow->warm_ms, flow->span_ms);
        if (connect(fd, (struct sockaddr *)&peer, sizeof peer) != 0 && errno != EINPROGRESS)
            fail("connect");
        watch(fd, EPOLL_CTL_ADD, EPOLLOUT);
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    set = epoll_create1(0);
    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        run(make_listener(atoi(argv[2])));
    } else if (argc == 7 && (strcmp(argv[1], "fetch") == 0 || strcmp(argv[1], "push") == 0)) {
        make_flows(argv);
        run(-1);
    } else {
        fprintf(stderr, "usage: stream serve PORT | stream fetch|push ADDRESS PORT FLOWS WARM_MS SPAN_MS\n");
        return 2;
    }
}
