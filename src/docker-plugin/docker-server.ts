import { mkdir } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import * as z from 'zod';
import { isForeignFault, UsageError } from '../base/errors.js';
import { listenPrivately, requireFreePath } from '../io/unix-socket-path.js';
import type { DockerVolumes } from './docker-volumes.js';

/**
 * The protocol of volume plugins, version 1 (docs.docker.com/engine/extend/plugins_volume):
 * POST of JSON over a unix socket. Podman speaks it too.
 */
const CONTENT_TYPE = 'application/vnd.docker.plugins.v1+json';
const BODY_BYTES_MAX = 1 << 20;
const CONNECTIONS_MAX = 64;

const name = z.object({ Name: z.string() });
const user = z.object({ Name: z.string(), ID: z.string().min(1).max(512) });
const created = z.object({
  Name: z.string(),
  Opts: z.record(z.string().max(256), z.string().max(4096)).nullish(),
});
const nothing = z.unknown();

type Method = (body: unknown, volumes: DockerVolumes) => Promise<unknown>;

function method<T>(
  schema: z.ZodType<T>,
  run: (body: T, volumes: DockerVolumes) => Promise<unknown>,
): Method {
  return async (body, volumes) => await run(schema.parse(body), volumes);
}

const METHODS: Readonly<Record<string, Method>> = {
  '/Plugin.Activate': method(nothing, async () => ({ Implements: ['VolumeDriver'] })),
  // Each machine has its own names; the disks may be shared behind them.
  '/VolumeDriver.Capabilities': method(nothing, async () => ({ Capabilities: { Scope: 'local' } })),
  '/VolumeDriver.Create': method(created, async ({ Name, Opts }, volumes) => {
    await volumes.create(Name, Opts ?? {});
    return {};
  }),
  '/VolumeDriver.Remove': method(name, async ({ Name }, volumes) => {
    await volumes.remove(Name);
    return {};
  }),
  '/VolumeDriver.Mount': method(user, async ({ Name, ID }, volumes) => ({
    Mountpoint: await volumes.mount(Name, ID),
  })),
  '/VolumeDriver.Unmount': method(user, async ({ Name, ID }, volumes) => {
    await volumes.unmount(Name, ID);
    return {};
  }),
  '/VolumeDriver.Path': method(name, async ({ Name }, volumes) => ({
    Mountpoint: (await volumes.find(Name)).Mountpoint,
  })),
  '/VolumeDriver.Get': method(name, async ({ Name }, volumes) => ({
    Volume: await volumes.find(Name),
  })),
  '/VolumeDriver.List': method(nothing, async (_body, volumes) => ({
    Volumes: await volumes.list(),
  })),
};

/** Where it listens: a path of its own, or a descriptor that systemd has opened. */
export type DockerPlace = { readonly path: string } | { readonly fd: number };

/** Serves the plugin until `close`. Throws UsageError if the socket cannot be had. */
export async function serveDocker(
  place: DockerPlace,
  volumes: DockerVolumes,
  onFailure: (error: unknown) => void,
): Promise<{ close(): Promise<void> }> {
  const server = createServer((request, response) => {
    answer(request, response, { volumes, onFailure }).catch(onFailure);
  });
  server.maxConnections = CONNECTIONS_MAX;
  if ('path' in place) {
    await mkdir(dirname(place.path), { recursive: true, mode: 0o755 });
    await requireFreePath('--socket', place.path, { server: 'process' });
  }
  await listenPrivately(server, place).catch((cause: Error) => {
    throw new UsageError(`--socket: ${cause.message}. Choose another path.`, { cause });
  });
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
      }),
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: { readonly volumes: DockerVolumes; readonly onFailure: (error: unknown) => void },
): Promise<void> {
  const run = METHODS[request.url ?? ''];
  if (request.method !== 'POST' || run === undefined) {
    // Docker takes this for a method that the plugin does not have.
    send(response, 404, { Err: `There is no ${request.method} ${request.url?.slice(0, 100)}.` });
    return;
  }
  try {
    send(response, 200, { ...Object(await run(await bodyOf(request), options.volumes)), Err: '' });
  } catch (error) {
    send(response, 500, { Err: wordsOf(error, options.onFailure) });
  }
}

function wordsOf(error: unknown, onFailure: (error: unknown) => void): string {
  if (error instanceof z.ZodError) return `The request is malformed: ${z.prettifyError(error)}`;
  if (error instanceof SyntaxError) return 'The request is not JSON.';
  if (isForeignFault(error)) return error.message;
  onFailure(error);
  return 'Internal error; see the log of iscsi-nbd docker-plugin.';
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) {
      throw new UsageError(`The request has more than ${BODY_BYTES_MAX} bytes.`);
    }
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8').trim();
  // Docker sends no body if a request has no parameters.
  return text === '' ? {} : JSON.parse(text);
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, { 'content-type': CONTENT_TYPE });
  response.end(text);
}
