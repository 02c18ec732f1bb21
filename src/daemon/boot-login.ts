import type { BootSource } from '../boot/boot-source.js';
import type { Logger } from '../config/log.js';
import type { Supervisor } from '../supervisor/supervisor.js';
import type { WantedLun } from './wait-for-luns.js';

/**
 * Where a daemon that holds the boot LUN keeps its state and its control socket: in memory, since
 * its disk may be the boot LUN, which no process can write to while it is away.
 */
export const BOOT_DIRECTORY = '/run/iscsi-nbd/boot';

type Environment = Readonly<Record<string, string | undefined>>;

/** The environment with the credentials of the boot LUN, which are kept nowhere else. */
export function withBootChap(environment: Environment, source: BootSource): Environment {
  const { chap } = source;
  if (chap === undefined) return environment;
  return {
    ...environment,
    LIBISCSI_CHAP_USERNAME: chap.user,
    LIBISCSI_CHAP_PASSWORD: chap.secret.reveal(),
    LIBISCSI_CHAP_TARGET_USERNAME: chap.target?.user,
    LIBISCSI_CHAP_TARGET_PASSWORD: chap.target?.secret.reveal(),
  };
}

/**
 * Makes the boot LUN a persistent login of the daemon, unless a daemon before this one has done so:
 * then its session is the one to go on with.
 */
export async function keepBootLogin(
  host: Pick<Supervisor, 'persistentLogins' | 'addPersistentLogin'>,
  source: BootSource,
  log: Logger,
): Promise<WantedLun> {
  const { origin, targetName, lun, portal, initiatorName } = source;
  log.info({ origin, target: targetName, lun }, 'the boot LUN is known');
  for (const warning of source.warnings) log.warn(warning);
  const wanted = { targetName, lun };
  const logins = await host.persistentLogins();
  if (logins.some((login) => login.sessionType === 'boot')) return wanted;
  await host.addPersistentLogin({
    targetName,
    portal: { host: portal.host, port: portal.port },
    sessionType: 'boot',
    persistent: true,
    options: {
      ...source.options,
      luns: [lun],
      ...(initiatorName === undefined ? {} : { initiatorName }),
    },
  });
  return wanted;
}
