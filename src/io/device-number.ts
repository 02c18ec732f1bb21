/** `dev` and `rdev` of stat(2) in their parts, as the C library makes them (makedev(3)). */
export function deviceNumberOf(dev: number): { readonly major: number; readonly minor: number } {
  const above = Math.floor(dev / 2 ** 12);
  return { major: Math.floor(dev / 2 ** 8) & 0xfff, minor: (dev & 0xff) | (above & 0xfff00) };
}
