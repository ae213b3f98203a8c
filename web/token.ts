// The token of this page: comes with the URL that the server printed, is kept for this tab (so that a reload
// works) and taken out of the address bar, where it would be seen, shared and remembered.

const KEY = 'xen-zcopy-token';

/** The token, or an empty text when this page was opened without one. */
export function takeToken(): string {
  const url = new URL(location.href);
  const given = url.searchParams.get('token');
  if (given !== null) {
    sessionStorage.setItem(KEY, given);
    url.searchParams.delete('token');
    history.replaceState(null, '', url);
  }
  return sessionStorage.getItem(KEY) ?? '';
}
