// static_echo PORT: an echo server, one connection after the other. Linked statically, so that nothing can be preloaded.
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in here = { .sin_family = AF_INET };
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	char buffer[4096];

	if (argc != 2)
		return 2;
	here.sin_port = htons(atoi(argv[1]));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 16)) {
		perror("static_echo");
		return 1;
	}
	puts("started");
	fflush(stdout);
	for (;;) {
		int connection = accept(listener, NULL, NULL);
		ssize_t n;

		while ((n = read(connection, buffer, sizeof buffer)) > 0)
			if (write(connection, buffer, n) != n)
				break;
		close(connection);
	}
}
