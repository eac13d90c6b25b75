/* write_and_exit ADDRESS PORT BYTES: connects, writes a count in native 32-bit words, and is gone with the last write. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: write_and_exit ADDRESS PORT BYTES\n");
        return 2;
    }
    struct sockaddr_in peer = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[2])) };
    inet_pton(AF_INET, argv[1], &peer.sin_addr);
    size_t size = strtoul(argv[3], NULL, 10);
    uint32_t *words = malloc(size + 4);
    for (size_t i = 0; i <= size / 4; i++)
        words[i] = i;

    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&peer, sizeof peer) != 0) {
        perror("connect");
        return 1;
    }
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (char *)words + done, size - done);
        if (n <= 0) {
            perror("write");
            return 1;
        }
        done += n;
    }
    _exit(0); /* no close, no shutdown, no atexit handler */
}
