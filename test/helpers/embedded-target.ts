import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import type { TargetInput, TargetNodeOptions } from '../../src/target/settings.js';
import { TargetNode } from '../../src/target/target.js';
import { freePort } from './tgt.js';

/** A target of this process, on a port of this machine. */
export type EmbeddedTarget = {
  readonly node: TargetNode;
  readonly server: TargetServer;
  /** Without a LUN. */
  readonly url: string;
  [Symbol.asyncDispose](): Promise<void>;
};

/** Starts the embedded target; a lost session may log in again at once, unless told otherwise. */
export async function embeddedTarget(
  target: TargetInput,
  options: Omit<TargetNodeOptions, 'targets'> = {},
): Promise<EmbeddedTarget> {
  const negotiation = { defaultTime2Wait: 0, ...options.negotiation };
  const node = new TargetNode({ ...options, targets: [target], negotiation });
  const server = await startTargetServer(node, { port: await freePort() });
  return {
    node,
    server,
    url: `iscsi://${server.portal}/${target.name}`,
    [Symbol.asyncDispose]: () => server.close(),
  };
}
