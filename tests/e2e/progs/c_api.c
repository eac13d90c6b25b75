/* Asks libsidestep.so, if it is there, who carries a connection to ADDRESS PORT: before and after connect(). */
#define SIDESTEP_WEAK
#include "../../../include/sidestep.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	if (!sidestep_fd_path) {
		puts("no sidestep");
		return 0;
	}
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
	inet_pton(AF_INET, argv[1], &to.sin_addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	printf("api %u version %s\n", sidestep_api_version(), sidestep_version());
	printf("fresh %d\n", sidestep_fd_path(fd));
	if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
		return 1;
	printf("connected %d\n", sidestep_fd_path(fd));
	close(fd);
	int closed = sidestep_fd_path(fd);
	printf("closed %d errno %d\n", closed, closed < 0 ? errno : 0);
	return 0;
}
