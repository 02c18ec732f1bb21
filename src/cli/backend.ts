import type { Backend } from '../config/contract.js';

/**
 * The real data path. Each part is loaded when it is used, so that `--help` and a wrong command
 * line answer at once and need no native addon.
 */
export const lazyBackend: Backend = {
  async discover(portal, options, signal, warn) {
    const { discover } = await guarded(() => import('../session/discovery-session.js'));
    return discover(portal, options, signal, warn);
  },
  async openInformational(url, options, signal, warn) {
    const { openInformational } = await guarded(
      () => import('../session/informational-session.js'),
    );
    return openInformational(url, options, signal, warn);
  },
  async serve(url, options, hooks) {
    const { serve } = await guarded(() => import('../supervisor/serve.js'));
    return serve(url, options, hooks);
  },
  async attach(url, options, hooks) {
    const { attach } = await guarded(() => import('../supervisor/attach.js'));
    return attach(url, options, hooks);
  },
  async bootTest(url, options, hooks) {
    const { runBootTest } = await guarded(() => import('../boot-test/boot-test.js'));
    return runBootTest(url, options, hooks);
  },
  async check(url, options, hooks) {
    const { checkTarget } = await guarded(() => import('../check/check-target.js'));
    return checkTarget(url, options, hooks);
  },
  async runDemo(hooks) {
    const { runDemo } = await guarded(() => import('../demo/demo.js'));
    return runDemo(hooks);
  },
};

/** Loads a part of the data path, of whose process no core file is made. */
export async function guarded<T>(load: () => Promise<T>): Promise<T> {
  const { forbidCoreFiles } = await import('../session/core-files.js');
  forbidCoreFiles();
  return load();
}
