import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { withControl } from '../control-session.js';
import { Interrupts, whenAborted } from '../interrupts.js';
import { printLine } from '../print.js';
import { placeOfVolumes, withVolumeFlags } from '../volume-flags.js';

/** The first descriptor that systemd hands over (sd_listen_fds(3)). */
const LISTEN_FD = 3;

export const DOCKER_PLUGIN: CommandBody = { build: withDockerPlugin, run: runDockerPlugin };

function withDockerPlugin(parser: Argv): Argv {
  return withVolumeFlags(withControl(parser)).option('socket', {
    type: 'string',
    requiresArg: true,
    describe: 'unix socket to listen on; not needed if systemd has opened it',
  });
}

/** `docker-plugin`: volumes for Docker and Podman, in the foreground, until SIGTERM. */
async function runDockerPlugin(context: CommandContext, args: Arguments): Promise<number> {
  const { io } = context;
  const { serveDocker } = await import('../../docker-plugin/docker-server.js');
  const { DockerVolumes } = await import('../../docker-plugin/docker-volumes.js');
  const { openVolumes } = await import('../../volume/open-volumes.js');
  using interrupts = new Interrupts(io.signals);
  const place = placeOfVolumes(context, args, 'docker');
  const where = listenPlaceOf(io.environment, textArgument(args, 'socket'));
  const volumes = new DockerVolumes({ ...(await openVolumes(place)), now: () => new Date() });
  const server = await serveDocker(where, volumes, (error) => {
    place.log.error({ err: error }, 'a request of Docker broke');
  });
  const socket = 'path' in where ? where.path : `descriptor ${where.fd}`;
  const facts = { event: 'ready', time: new Date().toISOString(), socket };
  printLine(io, isGiven(args, 'json') ? JSON.stringify(facts) : `ready: listening on ${socket}`);
  await whenAborted(interrupts.signal);
  // What is under way is finished first; volumes stay mounted.
  await server.close();
  return 0;
}

function listenPlaceOf(
  environment: Readonly<Record<string, string | undefined>>,
  path: string | undefined,
): { readonly path: string } | { readonly fd: number } {
  const isOurs = environment['LISTEN_PID'] === String(process.pid);
  if (isOurs && environment['LISTEN_FDS'] === '1') return { fd: LISTEN_FD };
  if (path !== undefined) return { path };
  throw new UsageError('--socket PATH is missing, e.g. /run/docker/plugins/iscsi-nbd.sock.');
}
