/**
 * The way to a portal of this machine, and how it breaks: by the kernel's packet filter, so that
 * neither initiator nor target has a part in it.
 */
import { run, shell } from './attached.js';

/** `reset`: every packet is answered with a TCP reset. `drop`: every packet is lost. */
export type Cut = 'reset' | 'drop';

const TARGETS = { reset: 'REJECT --reject-with tcp-reset', drop: 'DROP' } as const;

export class Wire {
  readonly portal: string;
  #cut: Cut | null = null;

  /** `address:port`; the address is added to the loopback interface if it is not there. */
  static async to(portal: string): Promise<Wire> {
    const [address = ''] = portal.split(':');
    if (!address.startsWith('127.')) {
      await run('ip', 'address', 'replace', `${address}/32`, 'dev', 'lo');
    }
    const wire = new Wire(portal);
    // Once for all: it takes a while until the filter's modules are loaded.
    await wire.cut('reset');
    await wire.mend();
    return wire;
  }

  private constructor(portal: string) {
    this.portal = portal;
  }

  /** Until `mend`, in both directions. */
  async cut(how: Cut): Promise<void> {
    await this.mend();
    this.#cut = how;
    await this.#filter('-I', how);
  }

  async mend(): Promise<void> {
    const how = this.#cut;
    this.#cut = null;
    if (how !== null) await this.#filter('-D', how);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.mend();
  }

  async #filter(operation: '-I' | '-D', how: Cut): Promise<void> {
    const [address = '', port = ''] = this.portal.split(':');
    // Not what the filter itself sends.
    const rules = [
      `-d ${address} -p tcp --dport ${port} ! --tcp-flags RST RST`,
      `-s ${address} -p tcp --sport ${port} ! --tcp-flags RST RST`,
    ];
    const lines = rules.map((rule) => `${operation} INPUT ${rule} -j ${TARGETS[how]}`);
    // The older interface: the newer one is not in every kernel of the VM.
    await shell(`iptables-legacy-restore --wait --noflush <<'RULES'
*filter
${lines.join('\n')}
COMMIT
RULES`);
  }
}
