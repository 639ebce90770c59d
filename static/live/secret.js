/**
 * What lets this browser run code. It is kept where the port of an address counts, as it does not for cookies, and for
 * all tabs and reloads; each start of the server has another one.
 */
const name = "live-secret";

export const secret = () => localStorage.getItem(name) ?? "";

/** @param {string} secret */
export const keepSecret = (secret) => localStorage.setItem(name, secret);
