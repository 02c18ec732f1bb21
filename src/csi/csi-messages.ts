/** Requests as they arrive: a text that was not sent is empty, a message is null. */

type Texts = Readonly<Record<string, string>>;

export type CapabilityMessage = {
  readonly block?: unknown;
  readonly mount?: {
    readonly fs_type: string;
    readonly mount_flags: readonly string[];
  } | null;
  readonly access_mode?: { readonly mode: number } | null;
};

export type CreateMessage = {
  readonly name: string;
  readonly capacity_range: ExpandMessage['capacity_range'];
  readonly volume_capabilities: readonly CapabilityMessage[];
};

export type DeleteMessage = { readonly volume_id: string };

export type ValidateMessage = {
  readonly volume_id: string;
  readonly volume_context: Texts;
  readonly volume_capabilities: readonly CapabilityMessage[];
};

export type StageMessage = {
  readonly volume_id: string;
  readonly staging_target_path: string;
  readonly volume_capability: CapabilityMessage | null;
  readonly secrets: Texts;
  readonly volume_context: Texts;
};

export type UnstageMessage = {
  readonly volume_id: string;
  readonly staging_target_path: string;
};

export type PublishMessage = {
  readonly volume_id: string;
  readonly staging_target_path: string;
  readonly target_path: string;
  readonly volume_capability: CapabilityMessage | null;
  readonly readonly: boolean;
};

export type UnpublishMessage = { readonly volume_id: string; readonly target_path: string };

export type StatsMessage = { readonly volume_id: string; readonly volume_path: string };

export type ExpandMessage = {
  readonly volume_id: string;
  readonly volume_path: string;
  /** 64-bit numbers as texts. */
  readonly capacity_range: {
    readonly required_bytes: string;
    readonly limit_bytes: string;
  } | null;
};
