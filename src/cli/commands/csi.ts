import { join } from 'node:path';
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
import { readVersion } from '../version.js';
import { placeOfVolumes, withVolumeFlags } from '../volume-flags.js';

/** Of the specification, "Size Limits". */
const NODE_ID_BYTES_MAX = 256;
const VOLUMES_MAX = '0';

export const CSI: CommandBody = { build: withCsi, run: runCsi };

function withCsi(parser: Argv): Argv {
  const text = (describe: string) => ({ type: 'string', requiresArg: true, describe }) as const;
  return withVolumeFlags(withControl(parser))
    .option('endpoint', text('socket to listen on: unix:///csi/csi.sock (or CSI_ENDPOINT)'))
    .option('node-id', text("the node's name in the cluster (or NODE_ID)"))
    .option('register', text('socket to make in the plugins_registry of the kubelet'))
    .option('kubelet-endpoint', text('path of --endpoint as the kubelet sees it [--endpoint]'))
    .option('controller-volumes', text('list of volumes that CreateVolume gives away [none]'))
    .option('volumes-max', text(`volumes this node may have; 0: not told [${VOLUMES_MAX}]`))
    .option('topology', text('where the node is: <key>=<value>,… [none]'));
}

/** `csi`: volumes for Kubernetes and Nomad, in the foreground, until SIGTERM. */
async function runCsi(context: CommandContext, args: Arguments): Promise<number> {
  const { io } = context;
  const { serveCsi, serveRegistration } = await import('../../csi/csi-server.js');
  const { CsiController } = await import('../../csi/csi-controller.js');
  const { CsiNode } = await import('../../csi/csi-node.js');
  const { openVolumes } = await import('../../volume/open-volumes.js');
  using interrupts = new Interrupts(io.signals);
  const place = placeOfVolumes(context, args, 'csi');
  const { log } = place;
  const endpoint = needed(context, args, 'endpoint', 'CSI_ENDPOINT');
  const nodeId = needed(context, args, 'node-id', 'NODE_ID');
  if (Buffer.byteLength(nodeId) > NODE_ID_BYTES_MAX) {
    throw new UsageError(`--node-id has more than ${NODE_ID_BYTES_MAX} bytes.`);
  }
  const identity = {
    nodeId,
    volumesMax: wholeNumber(textArgument(args, 'volumes-max') ?? VOLUMES_MAX),
    topology: segmentsOf(textArgument(args, 'topology') ?? ''),
  };
  const { volumes, folder } = await openVolumes(place);
  const list = textArgument(args, 'controller-volumes');
  const bindings = join(folder, 'bindings');
  const controller = list === undefined ? null : await CsiController.open(list, bindings);
  const onFailure = (error: unknown) => log.error({ err: error }, 'a call of CSI broke');
  const node = new CsiNode(volumes, identity);
  const server = await serveCsi(endpoint, { node, controller, version: readVersion(), onFailure });
  const registryPath = textArgument(args, 'register');
  const kubeletEndpoint = textArgument(args, 'kubelet-endpoint') ?? endpoint;
  const registration =
    registryPath === undefined
      ? null
      : await serveRegistration(
          { registryPath, endpoint: kubeletEndpoint },
          {
            onFailure,
            onStatus: (isRegistered, error) => {
              if (isRegistered) log.info('the kubelet has registered the plugin');
              else log.error({ reason: error }, 'the kubelet has not registered the plugin');
            },
          },
        );
  const facts = { event: 'ready', time: new Date().toISOString(), endpoint };
  printLine(io, isGiven(args, 'json') ? JSON.stringify(facts) : `ready: listening on ${endpoint}`);
  await whenAborted(interrupts.signal);
  // What is under way is finished first; volumes stay mounted.
  await Promise.all([registration?.close(), server.close()]);
  return 0;
}

function needed(
  { io }: CommandContext,
  args: Arguments,
  flag: string,
  environmentName: string,
): string {
  const text = textArgument(args, flag) ?? io.environment[environmentName] ?? '';
  if (text !== '') return text;
  throw new UsageError(`--${flag} (or ${environmentName}) is missing.`);
}

function wholeNumber(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new UsageError(`--volumes-max must be a whole number, not '${text}'.`);
}

function segmentsOf(text: string): Readonly<Record<string, string>> {
  const pairs = text.split(',').filter((pair) => pair !== '');
  return Object.fromEntries(
    pairs.map((pair) => {
      const [key = '', value = '', ...more] = pair.split('=');
      if (key !== '' && value !== '' && more.length === 0) return [key, value];
      throw new UsageError(`--topology: '${pair}' is not <key>=<value>.`);
    }),
  );
}
