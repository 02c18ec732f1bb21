import { describe, expect, it } from 'vitest';
import { CliRun, fakeBackend, URL_LUN0 } from './fake-io.js';

describe('attach --from', () => {
  it.each([
    ['neither a URL nor --from', ['attach'], 7, 'a URL, or --boot --from'],
    ['both', ['attach', URL_LUN0, '--boot', '--from', 'auto'], 7, 'in its place'],
    ['--from without --boot', ['attach', '--from', 'auto'], 7, '--boot --from'],
    ['a place that is none', ['attach', '--boot', '--from', 'disk'], 7, 'cmdline'],
    // No machine that runs tests was started from a LUN.
    ['a system that was not started from a LUN', ['attach', '--boot', '--from', 'auto'], 21, 'LUN'],
  ])(
    'attach with %s exits with its status and says what to do',
    async (_what, argv, status, words) => {
      const cli = new CliRun([...argv, '--removal-latency', 'never'], fakeBackend({}));
      expect(await cli.result).toBe(status);
      expect(cli.err).toContain(words);
    },
  );
});
