import type { Mount } from '../io/mount-info.js';

/** The system calls and programs that volumes need: the only way from here to the host. */
export type VolumeHost = {
  /**
   * Runs a program without a shell and without input. Rejects with VolumeError `failed` if it
   * cannot be started or does not end in `timeoutMs`, and does not wait for it then.
   */
  run(program: string, args: readonly string[], timeoutMs: number): Promise<ProgramEnd>;
  /** What is mounted in our mount namespace, in the order of mounting. */
  mounts(): Promise<readonly Mount[]>;
  /** The path without symbolic links; its last part need not exist. */
  resolvePath(path: string): Promise<string>;
  kindOf(path: string): Promise<PathKind>;
  /** `major:minor` of a block device; null for anything else. */
  deviceNumberOf(path: string): Promise<string | null>;
  sizeOf(device: string): Promise<number>;
  read(device: string, offsetBytes: number, lengthBytes: number): Promise<Buffer>;
  /** True if the block device has no exclusive user: no mount, mkfs, dm or md. */
  isFree(device: string): Promise<boolean>;
  /** Makes a folder, with those above it; one that is there is fine. */
  makeFolder(path: string): Promise<void>;
  /** Makes an empty file; one that is there is fine. */
  makeFile(path: string): Promise<void>;
  /** Removes an empty folder; none is fine. */
  removeFolder(path: string): Promise<void>;
  /** Removes an empty file; none is fine. */
  removeFile(path: string): Promise<void>;
  statistics(path: string): Promise<FileSystemStatistics>;
};

export type ProgramEnd = {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
};

export type PathKind = 'none' | 'folder' | 'file' | 'block' | 'other';

export type FileSystemStatistics = {
  readonly totalBytes: number;
  readonly availableBytes: number;
  readonly usedBytes: number;
  readonly totalInodes: number;
  readonly availableInodes: number;
};
