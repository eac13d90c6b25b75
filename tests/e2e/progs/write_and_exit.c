/* write_and_exit ADDRESS PORT BYTES [END]: connects (or, as -, accepts one), writes a count in native 32-bit words, and is gone with
 * the last write: by END. */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int get_connection(const char *address, int port)
{
    struct sockaddr_in peer = { .sin_family = AF_INET, .sin_port = htons(port) };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (strcmp(address, "-") != 0) {
        inet_pton(AF_INET, address, &peer.sin_addr);
        return connect(fd, (struct sockaddr *)&peer, sizeof peer) == 0 ? fd : -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&peer, sizeof peer) != 0 || listen(fd, 8) != 0)
        return -1;
    return accept(fd, NULL, NULL);
}

static void *wait_for_ever(void *fd)
{
    char byte;
    recv(*(int *)fd, &byte, 1, 0);
    return NULL;
}

static void linger(int fd, int seconds)
{
    struct linger linger = { .l_onoff = 1, .l_linger = seconds };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: write_and_exit ADDRESS PORT BYTES [END]\n");
        return 2;
    }
    const char *end = argc == 5 ? argv[4] : "_exit";
    size_t size = strtoul(argv[3], NULL, 10);
    uint32_t *words = malloc(size + 4);
    for (size_t i = 0; i <= size / 4; i++)
        words[i] = i;

    int fd = get_connection(argv[1], atoi(argv[2]));
    if (fd < 0) {
        perror("connection");
        return 1;
    }
    pthread_t thread;
    if (strncmp(end, "thread", 6) == 0) {
        pthread_create(&thread, NULL, wait_for_ever, &fd);
        usleep(50000);
    }
    if (argc == 5) { /* room for all of it, whoever reads */
        int room = 400000;
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    }
    if (strcmp(end, "linger") == 0)
        linger(fd, 10);
    if (strcmp(end, "reset") == 0)
        linger(fd, 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (char *)words + done, size - done);
        if (n <= 0) {
            perror("write");
            return 1;
        }
        done += n;
    }
    char byte;
    if (strcmp(end, "unread") == 0)
        recv(fd, &byte, 1, MSG_PEEK);
    if (strcmp(end, "exit") == 0)
        exit(0);
    if (strcmp(end, "term") == 0)
        raise(SIGTERM);
    if (strcmp(end, "kill") == 0)
        raise(SIGKILL);
    if (strcmp(end, "abort") == 0)
        abort();
    if (strcmp(end, "thread_returns") == 0)
        return 0;
    if (strcmp(end, "thread_quick") == 0)
        quick_exit(0);
    if (strcmp(end, "close") == 0)
        close(fd);
    _exit(0); /* no close, no shutdown, no atexit handler */
}
