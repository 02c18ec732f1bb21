import type { CommandBody } from './context.js';

export type Command = {
  readonly usage: string;
  readonly summary: string;
  /** Loads the modules of the command, which no other command needs. */
  readonly load: () => Promise<CommandBody>;
  readonly examples: readonly (readonly [command: string, what: string])[];
};

const TARGET = 'iqn.2001-04.com.example:disk1';
const TARGET_URL = `iscsi://192.0.2.1/${TARGET}`;

/** The daemon, and the commands that talk to it. */
export const DAEMON_COMMANDS: readonly Command[] = [
  {
    usage: 'daemon',
    summary: 'own sessions and devices; the commands below talk to it',
    load: async () => (await import('./commands/daemon.js')).DAEMON,
    examples: [
      ['$0 daemon', 'LUNs become /dev/nbdX; needs root'],
      ['$0 daemon --control ./c --state-directory ./s --socket-directory ./n', 'needs no root'],
    ],
  },
  {
    usage: 'login <portal> <target>',
    summary: 'log in to a target (daemon)',
    load: async () => (await import('./commands/session.js')).LOGIN,
    examples: [[`$0 login 192.0.2.1 ${TARGET} --persistent`, 'now and at every start']],
  },
  {
    usage: 'logout [session]',
    summary: 'log a session out (daemon)',
    load: async () => (await import('./commands/session.js')).LOGOUT,
    examples: [
      [`$0 logout ${TARGET}`, ''],
      ['$0 logout --all', ''],
    ],
  },
  {
    usage: 'sessions',
    summary: 'list sessions (daemon)',
    load: async () => (await import('./commands/session.js')).SESSIONS,
    examples: [],
  },
  {
    usage: 'session <session>',
    summary: 'show a session: state, keys as offered, declared and in force (daemon)',
    load: async () => (await import('./commands/session.js')).SESSION,
    examples: [],
  },
  {
    usage: 'paths [session]',
    summary: 'list the paths of disks that have several (daemon)',
    load: async () => (await import('./commands/paths.js')).PATHS,
    examples: [],
  },
  {
    usage: 'devices',
    summary: 'list the disks that can be used (daemon)',
    load: async () => (await import('./commands/session.js')).DEVICES,
    examples: [],
  },
  {
    usage: 'rescan [session]',
    summary: 'look for LUNs that are new, gone or of another size (daemon)',
    load: async () => (await import('./commands/session.js')).RESCAN,
    examples: [],
  },
  {
    usage: 'set <session> <key> <value>',
    summary: 'change a timer or limit of a running session (daemon)',
    load: async () => (await import('./commands/session.js')).SET,
    examples: [[`$0 set ${TARGET} removal-latency 300`, 'ride out five minutes']],
  },
  {
    usage: 'events',
    summary: 'tell what happens, as it happens (daemon)',
    load: async () => (await import('./commands/watch.js')).EVENTS,
    examples: [['$0 events --json', 'one JSON object a line']],
  },
  {
    usage: 'top',
    summary: 'throughput, latency and outages, live (daemon)',
    load: async () => (await import('./commands/top.js')).TOP,
    examples: [['$0 top --count 1', 'one table of plain text']],
  },
  {
    usage: 'persistent <action> [session]',
    summary: 'list or remove the logins of every start (daemon)',
    load: async () => (await import('./commands/persistent.js')).PERSISTENT,
    examples: [['$0 persistent list', '']],
  },
  {
    usage: 'import-open-iscsi [nodes]',
    summary: "keep open-iscsi's node records as persistent logins (daemon)",
    load: async () => (await import('./commands/import.js')).IMPORT_OPEN_ISCSI,
    examples: [['$0 import-open-iscsi --dry-run', 'what would be kept']],
  },
  {
    usage: 'docker-plugin',
    summary: 'LUNs as volumes of Docker and Podman (daemon)',
    load: async () => (await import('./commands/docker-plugin.js')).DOCKER_PLUGIN,
    examples: [['$0 docker-plugin --socket /run/docker/plugins/iscsi-nbd.sock', 'needs root']],
  },
  {
    usage: 'csi',
    summary: 'LUNs as volumes of Kubernetes and Nomad (daemon)',
    load: async () => (await import('./commands/csi.js')).CSI,
    examples: [['$0 csi --endpoint unix:///csi/csi.sock --node-id node1', 'needs root']],
  },
];

/** All commands in the order of the help. */
export const COMMANDS: readonly Command[] = [
  {
    usage: 'check <url>',
    summary: 'find out what a target is and does, and which options fit it; writes nothing',
    load: async () => (await import('./commands/check.js')).CHECK,
    examples: [
      [`$0 check ${TARGET_URL}`, 'every LUN; run this first'],
      [`$0 check ${TARGET_URL}/0 --json`, 'one LUN, for programs'],
    ],
  },
  {
    usage: 'discover <portal>',
    summary: 'list the targets of a portal',
    load: async () => (await import('./commands/query.js')).DISCOVER,
    examples: [['$0 discover 192.0.2.1', 'list targets, with the URLs the other commands take']],
  },
  {
    usage: 'luns <url>',
    summary: 'list the LUNs of a target, with their sizes',
    load: async () => (await import('./commands/query.js')).LUNS,
    examples: [[`$0 luns ${TARGET_URL}`, 'what is there']],
  },
  {
    usage: 'inquiry <url>',
    summary: 'show what a LUN says about itself',
    load: async () => (await import('./commands/query.js')).INQUIRY,
    examples: [
      [`$0 inquiry ${TARGET_URL}/0`, 'vendor, product, revision'],
      [`$0 inquiry ${TARGET_URL}/0 --vpd 83 --json`, 'its identifiers'],
    ],
  },
  {
    usage: 'capacity <url>',
    summary: 'show the size of a LUN',
    load: async () => (await import('./commands/query.js')).CAPACITY,
    examples: [[`$0 capacity ${TARGET_URL}/0`, 'blocks and bytes']],
  },
  {
    usage: 'ping <url>',
    summary: 'measure round trips to a target',
    load: async () => (await import('./commands/ping.js')).PING,
    examples: [[`$0 ping ${TARGET_URL} --count 100 --interval 0.01`, 'latency statistics']],
  },
  {
    usage: 'serve <url>',
    summary: 'serve LUNs over NBD on a unix socket; needs no root and no kernel driver',
    load: async () => (await import('./commands/block.js')).SERVE,
    examples: [
      [`$0 serve ${TARGET_URL}/0 --socket /tmp/disk.sock`, 'until SIGINT or SIGTERM'],
      [`$0 serve ${TARGET_URL}/0 --run 'qemu-img info "$uri"'`, 'for one command'],
    ],
  },
  {
    usage: 'attach [url]',
    summary: 'make LUNs into /dev/nbdX devices; needs root',
    load: async () => (await import('./commands/block.js')).ATTACH,
    examples: [
      [`$0 attach ${TARGET_URL}/0`, 'until SIGINT or SIGTERM'],
      ['$0 attach --boot --from ibft', 'the LUN the firmware started from'],
    ],
  },
  {
    usage: 'boot-test <url>',
    summary: 'boot the image on a LUN in QEMU and say whether it comes up',
    load: async () => (await import('./commands/boot-test.js')).BOOT_TEST,
    examples: [
      [`$0 boot-test ${TARGET_URL}/0`, 'the LUN is not touched'],
      [`$0 boot-test ${TARGET_URL}/0 --expect 'Startup finished'`, 'and says this on its console'],
    ],
  },
  {
    usage: 'demo',
    summary: 'show it all on this machine: a target, a disk, an outage',
    load: async () => (await import('./commands/demo.js')).DEMO,
    examples: [['$0 demo', 'needs no target']],
  },
  ...DAEMON_COMMANDS,
  {
    usage: 'explain <code>',
    summary: 'say what an exit status, login status, sense code or errno means',
    load: async () => (await import('./commands/explain.js')).EXPLAIN,
    examples: [
      ['$0 explain 24', 'an exit status'],
      ['$0 explain 0201', 'a login status'],
      ['$0 explain 06/29/00', 'sense key, ASC and ASCQ'],
    ],
  },
];
