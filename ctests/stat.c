/* fstat and its relatives: a connection is a socket, and none other. */
#include "ct.h"

int isfdtype(int, int);

CASE(it_is_a_socket, BOTH | BOTH6 | DATAGRAM)
{
	struct stat st;
	struct statx x;
	SHOW(fstat(fd, &st));
	SAY("%o %ld %ld %d %d", st.st_mode, (long)st.st_size, (long)st.st_blksize, (int)st.st_nlink, st.st_uid == getuid());
	SHOW(fstatat(fd, "", &st, AT_EMPTY_PATH));
	SAY("%o", st.st_mode);
	SHOW(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x));
	SAY("%o %d", x.stx_mode, x.stx_ino == st.st_ino);
	SHOW(isfdtype(fd, S_IFSOCK));
	SHOW(isfdtype(fd, S_IFREG));
	SHOW(isfdtype(-1, S_IFSOCK));
	SHOW(fstat(fd, (struct stat *)8));
	SHOW(isatty(fd));
	SHOW(fsync(fd));
	SHOW(ftruncate(fd, 0));
	SHOW(fchdir(fd));
	PEER(SHOW(send(fd, "x", 1, 0)));
	char b;
	SHOW(recv(fd, &b, 1, 0));
}

CASE(two_connections_are_two_files, SERVER | CLIENT)
{
	struct stat a, b, c;
	int l = ct_listen(ct_here(1));
	PEER(ct_connect(ct_here(1)); ct_connect(ct_here(1)));
	int s = accept(l, NULL, NULL), t = accept(l, NULL, NULL), d = dup(s);
	fstat(s, &a);
	fstat(t, &b);
	fstat(d, &c);
	SHOW(a.st_dev == b.st_dev);
	SHOW(a.st_ino == b.st_ino);
	SHOW(a.st_ino == c.st_ino);
	fstat(l, &c);
	SHOW(a.st_ino == c.st_ino);
	fstat(fd, &c);
	SHOW(a.st_ino == c.st_ino);
	struct statx x;
	SHOW(statx(s, "", AT_EMPTY_PATH, STATX_INO, &x));
	SHOW(x.stx_ino == a.st_ino);
	SHOW(fstatat(s, "", &c, AT_EMPTY_PATH));
	SHOW(c.st_ino == a.st_ino);
	SHOW(write(s, "x", 1));
}

CASE(files_are_what_they_were, BOTH)
{
	struct stat a, b;
	int f = open("/etc/passwd", O_RDONLY), dir = open("/etc", O_RDONLY | O_DIRECTORY);
	SHOW(fstat(f, &a));
	SHOW(stat("/etc/passwd", &b));
	SHOW(a.st_ino == b.st_ino);
	SHOW(fstatat(dir, "passwd", &b, 0));
	SHOW(a.st_ino == b.st_ino);
	SHOW(fstatat(AT_FDCWD, "/nowhere", &b, 0));
	SHOW(fstat(-1, &b));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}
