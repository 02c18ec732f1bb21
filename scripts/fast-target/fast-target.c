// A RAM disk over iSCSI that is fast enough not to be the limit of a benchmark: one thread, epoll,
// one receive and one send a wake, reads sent from the disk's own memory. It trusts its peer
// further than a product may, listens on loopback only, and offers no authentication.
//
//   fast-target PORT MEBIBYTES [LUNS]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session.h"

enum { PIECES_A_SEND = 1024, EVENTS_MAX = 64 };

typedef struct {
  int fd;
  Session *session;
} Link;

static _Noreturn void die(const char *what) {
  perror(what);
  exit(1);
}

// False when the link is of no more use; the rest is sent when there is room.
static bool send_queued(Link *link) {
  Session *session = link->session;
  while (session->piece < session->pieces_used) {
    const uint32_t left = session->pieces_used - session->piece;
    struct msghdr message = {.msg_iov = session->pieces + session->piece,
                             .msg_iovlen = left < PIECES_A_SEND ? left : PIECES_A_SEND};
    ssize_t sent = sendmsg(link->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    while (sent > 0) {
      struct iovec *first = session->pieces + session->piece;
      const size_t part = (size_t)sent < first->iov_len ? (size_t)sent : first->iov_len;
      first->iov_base = (uint8_t *)first->iov_base + part;
      first->iov_len -= part;
      sent -= (ssize_t)part;
      if (first->iov_len == 0) session->piece += 1;
    }
  }
  session->piece = session->pieces_used = session->headers_used = 0;
  return true;
}

static bool receive(Link *link) {
  Session *session = link->session;
  const uint32_t kept = session->filled - session->used;
  if (kept == 0 || IN_BYTES - session->filled < 1 << 20) {
    memmove(session->in, session->in + session->used, kept);
    session->used = 0;
    session->filled = kept;
  }
  const ssize_t length = recv(link->fd, session->in + session->filled,
                              IN_BYTES - session->filled, MSG_DONTWAIT);
  if (length <= 0) return length < 0 && (errno == EAGAIN || errno == EINTR);
  session->filled += (uint32_t)length;
  return true;
}

static bool serve(Link *link, uint32_t events) {
  Session *session = link->session;
  if ((events & EPOLLOUT) != 0 && !send_queued(link)) return false;
  // A peer that does not read is not read either.
  if (session->piece == session->pieces_used && (events & (EPOLLIN | EPOLLHUP)) != 0) {
    if (!receive(link)) return false;
  }
  while (session->piece == session->pieces_used) {
    if (!session_advance(session)) return false;
    if (session->pieces_used == 0) break;
    if (!send_queued(link)) return false;
    if (session->over && session->pieces_used == 0) return false;
  }
  return true;
}

static int listen_at(uint16_t port) {
  const int on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // Accepted sockets inherit it. Where the system paces what is sent (BBR), its timers would be
  // the limit of large reads.
  setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
  if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) die("bind");
  if (listen(fd, 64) != 0) die("listen");
  return fd;
}

static void watch(int epoll, int operation, Link *link, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = link};
  if (epoll_ctl(epoll, operation, link->fd, &event) != 0) die("epoll_ctl");
}

static void accept_link(int epoll, int listener, const Disk *disk) {
  const int on = 1;
  const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  Link *link = malloc(sizeof(Link));
  *link = (Link){.fd = fd, .session = session_new(disk)};
  watch(epoll, EPOLL_CTL_ADD, link, EPOLLIN);
}

int main(int count, char **arguments) {
  if (count < 3) {
    fprintf(stderr, "usage: fast-target PORT MEBIBYTES [LUNS [cache]]\n");
    return 2;
  }
  Disk disk = {.bytes = strtoull(arguments[2], NULL, 10) << 20,
               .luns = count > 3 ? atoi(arguments[3]) : 2,
               .write_cache = count > 4 && strcmp(arguments[4], "cache") == 0};
  disk.memory = mmap(NULL, disk.bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (disk.memory == MAP_FAILED) die("mmap");
  Link listener = {.fd = listen_at((uint16_t)atoi(arguments[1])), .session = NULL};
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, EPOLL_CTL_ADD, &listener, EPOLLIN);
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    struct epoll_event events[EVENTS_MAX];
    const int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int index = 0; index < ready; index += 1) {
      Link *link = events[index].data.ptr;
      if (link == &listener) {
        accept_link(epoll, listener.fd, &disk);
        continue;
      }
      const bool was_blocked = link->session->piece < link->session->pieces_used;
      if (!serve(link, events[index].events)) {
        close(link->fd);
        session_free(link->session);
        free(link);
        continue;
      }
      const bool is_blocked = link->session->piece < link->session->pieces_used;
      if (was_blocked != is_blocked) {
        watch(epoll, EPOLL_CTL_MOD, link, is_blocked ? EPOLLOUT : EPOLLIN);
      }
    }
  }
}
