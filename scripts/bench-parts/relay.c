// What a lone 4 KiB read costs a relay that does nothing else: client (unix socket), relay and
// target (TCP over loopback) on one processor, with messages as long as those of NBD and iSCSI and
// no protocol at all. It is the bound for serve with one request at a time.
//
//   cc -O2 -o /tmp/relay scripts/bench-parts/relay.c && /tmp/relay 1
//
// The number is the seconds it runs.
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 28, COMMAND = 48, RESPONSE = 48 + 4096, REPLY = 16 + 4096, ROOM = 1 << 18 };

static char memory[ROOM];

static void check(long result, const char *what) {
  if (result >= 0) return;
  perror(what);
  exit(1);
}

// False at the end of the stream.
static int receive(int fd, int bytes) {
  for (int got = 0; got < bytes;) {
    const ssize_t more = recv(fd, memory + got, bytes - got, 0);
    check(more, "recv");
    if (more == 0) return 0;
    got += more;
  }
  return 1;
}

// What follows from received bytes; true: send `*out` bytes to the other side.
static int advance(int from_client, int bytes, int *out) {
  static int of_response;
  *out = from_client ? COMMAND : REPLY;
  if (from_client) return 1;
  of_response += bytes;
  if (of_response < RESPONSE) return 0;
  of_response = 0;
  return 1;
}

static void relay(int client, int target) {
  const int poller = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = client};
  check(epoll_ctl(poller, EPOLL_CTL_ADD, client, &event), "epoll_ctl");
  event.data.fd = target;
  check(epoll_ctl(poller, EPOLL_CTL_ADD, target, &event), "epoll_ctl");
  for (;;) {
    struct epoll_event events[2];
    const int count = epoll_wait(poller, events, 2, -1);
    for (int at = 0; at < count; at += 1) {
      const int fd = events[at].data.fd;
      const ssize_t got = recv(fd, memory, ROOM, MSG_DONTWAIT);
      int out;
      if (got == 0) return;
      if (got > 0 && advance(fd == client, got, &out)) {
        check(send(fd == client ? target : client, memory, out, MSG_DONTWAIT), "send");
      }
    }
  }
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

// Nothing is congested within a host: as serve and the benchmark's target do.
static void prepare(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

int main(int count, char **words) {
  const double wanted = count > 1 ? atof(words[1]) : 1;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  check(sched_setaffinity(0, sizeof(one), &one), "sched_setaffinity");
  int pair[2];
  check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(place);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  check(bind(listener, (struct sockaddr *)&place, length), "bind");
  check(listen(listener, 1), "listen");
  check(getsockname(listener, (struct sockaddr *)&place, &length), "getsockname");
  const pid_t target_pid = fork();
  check(target_pid, "fork");
  if (target_pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(pair[0]);
    close(pair[1]);
    const int fd = accept(listener, 0, 0);
    prepare(fd);
    while (receive(fd, COMMAND)) check(send(fd, memory, RESPONSE, MSG_NOSIGNAL), "send");
    exit(0);
  }
  const pid_t relay_pid = fork();
  check(relay_pid, "fork");
  if (relay_pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(pair[0]);
    const int target = socket(AF_INET, SOCK_STREAM, 0);
    prepare(target);
    check(connect(target, (struct sockaddr *)&place, length), "connect");
    relay(pair[1], target);
    exit(0);
  }
  close(pair[1]);
  close(listener);
  long reads = 0;
  const double begin = seconds();
  double now;
  do {
    for (int at = 0; at < 100; at += 1) {
      check(send(pair[0], memory, REQUEST, MSG_NOSIGNAL), "send");
      if (!receive(pair[0], REPLY)) {
        fprintf(stderr, "the relay has ended\n");
        return 1;
      }
    }
    reads += 100;
    now = seconds();
  } while (now - begin < wanted);
  close(pair[0]);
  struct rusage usage;
  check(wait4(relay_pid, 0, 0, &usage), "wait4");
  check(waitpid(target_pid, 0, 0), "waitpid");
  const double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
                     (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  printf("%.0f reads a second, %.1f us each, %.1f us of it the relay's processor time\n",
         reads / (now - begin), (now - begin) / reads * 1e6, cpu / reads * 1e6);
  return 0;
}
