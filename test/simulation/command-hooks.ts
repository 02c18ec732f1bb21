import type { CommandContext, CommandFault } from '../../src/target/faults.js';

export type CommandHook = (context: CommandContext) => CommandFault;

/**
 * What several faults have to say about commands: the oldest that says something decides. But what
 * a unit has to report comes first: a command that meets that does nothing else (SAM-5 §5.14).
 */
export class CommandHooks {
  readonly #reports = new Set<CommandHook>();
  readonly #hooks = new Set<CommandHook>();

  readonly ask = (context: CommandContext): CommandFault => {
    for (const hooks of [this.#reports, this.#hooks]) {
      for (const hook of hooks) {
        const fault = hook(context);
        if (fault !== undefined) return fault;
      }
    }
    return undefined;
  };

  /** What a unit reports; the returned function ends it. */
  addReport(hook: CommandHook): () => void {
    this.#reports.add(hook);
    return () => this.#reports.delete(hook);
  }

  /** The returned function ends it. */
  add(hook: CommandHook): () => void {
    this.#hooks.add(hook);
    return () => this.#hooks.delete(hook);
  }

  clear(): void {
    this.#reports.clear();
    this.#hooks.clear();
  }
}
