import type { CommandContext, CommandFault } from '../../src/target/faults.js';

export type CommandHook = (context: CommandContext) => CommandFault;

/** What several faults have to say about commands: the oldest that says something decides. */
export class CommandHooks {
  readonly #hooks = new Set<CommandHook>();

  readonly ask = (context: CommandContext): CommandFault => {
    for (const hook of this.#hooks) {
      const fault = hook(context);
      if (fault !== undefined) return fault;
    }
    return undefined;
  };

  /** The returned function ends it. */
  add(hook: CommandHook): () => void {
    this.#hooks.add(hook);
    return () => this.#hooks.delete(hook);
  }

  clear(): void {
    this.#hooks.clear();
  }
}
