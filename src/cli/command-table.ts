import type { Argv } from 'yargs';
import { runCsi, withCsi } from './commands/csi.js';
import { runDaemonCommand, withDaemonFlags } from './commands/daemon.js';
import { runDockerPlugin, withDockerPlugin } from './commands/docker-plugin.js';
import { runImport, withImport } from './commands/import.js';
import { runPaths } from './commands/paths.js';
import { runPersistent, withPersistent } from './commands/persistent.js';
import {
  runDevices,
  runLogin,
  runLogout,
  runRescan,
  runSession,
  runSessions,
  runSet,
  withLogin,
  withLogout,
  withSet,
} from './commands/session.js';
import { runTop, withTop } from './commands/top.js';
import { runEvents } from './commands/watch.js';
import type { Arguments, CommandContext } from './context.js';
import { withControl, withSession } from './control-session.js';

export type Command = {
  readonly usage: string;
  readonly summary: string;
  readonly build: (parser: Argv) => Argv;
  readonly run: (context: CommandContext, args: Arguments) => Promise<number>;
  readonly examples: readonly (readonly [command: string, what: string])[];
};

const TARGET = 'iqn.2001-04.com.example:disk1';

/** The daemon, and the commands that talk to it. */
export const DAEMON_COMMANDS: readonly Command[] = [
  {
    usage: 'daemon',
    summary: 'own sessions and devices; the commands below talk to it',
    build: withDaemonFlags,
    run: runDaemonCommand,
    examples: [
      ['$0 daemon', 'LUNs become /dev/nbdX; needs root'],
      ['$0 daemon --control ./c --state-directory ./s --socket-directory ./n', 'needs no root'],
    ],
  },
  {
    usage: 'login <portal> <target>',
    summary: 'log in to a target (daemon)',
    build: withLogin,
    run: runLogin,
    examples: [[`$0 login 192.0.2.1 ${TARGET} --persistent`, 'now and at every start']],
  },
  {
    usage: 'logout [session]',
    summary: 'log a session out (daemon)',
    build: withLogout,
    run: runLogout,
    examples: [
      [`$0 logout ${TARGET}`, ''],
      ['$0 logout --all', ''],
    ],
  },
  {
    usage: 'sessions',
    summary: 'list sessions (daemon)',
    build: withControl,
    run: runSessions,
    examples: [],
  },
  {
    usage: 'session <session>',
    summary: 'show a session: state, keys as offered, declared and in force (daemon)',
    build: withSession,
    run: runSession,
    examples: [],
  },
  {
    usage: 'paths [session]',
    summary: 'list the paths of disks that have several (daemon)',
    build: withSession,
    run: runPaths,
    examples: [],
  },
  {
    usage: 'devices',
    summary: 'list the disks that can be used (daemon)',
    build: withControl,
    run: runDevices,
    examples: [],
  },
  {
    usage: 'rescan [session]',
    summary: 'look for LUNs that are new, gone or of another size (daemon)',
    build: withSession,
    run: runRescan,
    examples: [],
  },
  {
    usage: 'set <session> <key> <value>',
    summary: 'change a timer or limit of a running session (daemon)',
    build: withSet,
    run: runSet,
    examples: [[`$0 set ${TARGET} removal-latency 300`, 'ride out five minutes']],
  },
  {
    usage: 'events',
    summary: 'tell what happens, as it happens (daemon)',
    build: withControl,
    run: runEvents,
    examples: [['$0 events --json', 'one JSON object a line']],
  },
  {
    usage: 'top',
    summary: 'throughput, latency and outages, live (daemon)',
    build: withTop,
    run: runTop,
    examples: [['$0 top --count 1', 'one table of plain text']],
  },
  {
    usage: 'persistent <action> [session]',
    summary: 'list or remove the logins of every start (daemon)',
    build: withPersistent,
    run: runPersistent,
    examples: [['$0 persistent list', '']],
  },
  {
    usage: 'import-open-iscsi [nodes]',
    summary: "keep open-iscsi's node records as persistent logins (daemon)",
    build: withImport,
    run: runImport,
    examples: [['$0 import-open-iscsi --dry-run', 'what would be kept']],
  },
  {
    usage: 'docker-plugin',
    summary: 'LUNs as volumes of Docker and Podman (daemon)',
    build: withDockerPlugin,
    run: runDockerPlugin,
    examples: [['$0 docker-plugin --socket /run/docker/plugins/iscsi-nbd.sock', 'needs root']],
  },
  {
    usage: 'csi',
    summary: 'LUNs as volumes of Kubernetes and Nomad (daemon)',
    build: withCsi,
    run: runCsi,
    examples: [['$0 csi --endpoint unix:///csi/csi.sock --node-id node1', 'needs root']],
  },
];
