import type { OptionName } from '../config/config-options.js';
import type { Secret } from '../config/secrets.js';
import type { PortalAddress } from '../iscsi/login/portal.js';

export type BootChap = {
  readonly user: string;
  readonly secret: Secret;
  /** The target proves itself too. */
  readonly target?: { readonly user?: string; readonly secret: Secret };
};

/** Network interface of the firmware's boot, as far as it says. */
export type BootNic = {
  readonly mac: string;
  readonly address?: string;
  readonly gateway?: string;
  readonly vlan?: number;
};

/** The one LUN the system starts from, and how to log in to it. */
export type BootSource = {
  /** Where this was found, in words. */
  readonly origin: string;
  readonly portal: PortalAddress;
  readonly targetName: string;
  readonly lun: number;
  readonly initiatorName?: string;
  readonly chap?: BootChap;
  readonly nic?: BootNic;
  /** Session options as text, not yet checked. */
  readonly options: Readonly<Partial<Record<OptionName, string>>>;
  /** Whole sentences about what is passed over or unwise. */
  readonly warnings: readonly string[];
};
