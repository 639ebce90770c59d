/** The deck's kernel: found or started, watched, and asked to run code. */
import { KernelAPI, ServerConnection } from "@jupyterlab/services";
import { KernelConnection } from "@jupyterlab/services/lib/kernel/default.js";
import { secret } from "./secret.js";

/**
 * @typedef {"starting" | "ready" | "busy" | "lost"} State
 * @typedef {{type: string, content: any}} Message what a run sends: stream, display_data, error and so on
 * @typedef {{onMessage: (message: Message) => void, onRepeat?: (messages: Message[]) => void, onEnd: (how: "done" | "lost") => void}} Listener
 *   onMessage also hears what threads of a run send after its end
 */

const bootstrap = (/** @type {string[]} */ modules) => `
import pathlib as _pathlib, sys as _sys
_folder = next((_path / "code" for _path in [_pathlib.Path.cwd(), *_pathlib.Path.cwd().parents]
                if (_path / "code/lab/live.py").is_file()), None)
if _folder is None:
    raise RuntimeError("The kernel runs outside of a checkout of these lectures: start its Jupyter server in one")
if str(_folder) not in _sys.path:
    _sys.path.insert(0, str(_folder))
from lab import live
live.prepare(${JSON.stringify(modules)})
`;

export class Kernel {
  /**
   * @param {string} deck as in "slides/cnn.md"
   * @param {string[]} modules that the deck's snippets are of
   * @param {(state: State, why?: string) => void} onState
   */
  constructor(deck, modules, onState) {
    this.deck = deck;
    this.modules = modules;
    this.onState = onState;
    /** @type {State} */
    this.state = "starting";
    /** @type {Map<string, Listener>} by the id of the request */
    this.listeners = new Map();
    /** Of runs that have ended, until somebody forgets them. @type {Map<string, Listener>} */
    this.late = new Map();
    /** Requests that run while there is a new connection: some of what they sent may be lost. @type {Set<string>} */
    this.interrupted = new Set();
    /** @type {KernelConnection | null} */
    this.connection = null;
    /** @type {() => void} */
    this.onConnected = () => {};
    /** Kept once there is a first connection. @type {Promise<void>} */
    this.connected = new Promise((resolve) => (this.onConnected = resolve));
    this.isConnected = false;
    this.recovering = false;
    this.clientId = clientId();
    this.url = new URL(`${document.body.dataset.assets}kernel/`, document.baseURI);
    this.settings = ServerConnection.makeSettings({
      baseUrl: this.url.href,
      wsUrl: this.url.href.replace(/^http/, "ws"),
      token: "",
      appendToken: false,
      fetch: ask,
      WebSocket: watched(() => void this.recover()),
      init: { credentials: "omit", cache: "no-store" },
    });
  }

  /** @returns {Promise<"open" | "closed" | "waiting">} closed: this page may not; waiting: there is no kernel yet */
  async access() {
    const answer = await ask(new URL("state", this.url)).catch(() => null);
    return answer?.ok ? (await answer.json()).access : "waiting";
  }

  /** Connects to the deck's kernel; goes on trying while there is hope. */
  async connect() {
    this.tell("starting");
    for (;;) {
      const access = await this.access();
      if (access === "closed") return false;
      if (access === "open" && (await this.attach().catch(() => false))) return true;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }

  /** @returns {Promise<boolean>} whether there is a kernel for this deck now */
  async attach() {
    const answer = await ask(new URL("api/sessions", this.url), {
      method: "POST",
      body: JSON.stringify({ path: this.deck, name: this.deck, type: "notebook", kernel: {} }),
    });
    if (!answer.ok) return false;
    const { kernel } = await answer.json();
    if (kernel.execution_state === "dead") await KernelAPI.restartKernel(kernel.id, this.settings);
    this.connection?.dispose();
    const connection = new KernelConnection({
      model: kernel, serverSettings: this.settings, clientId: this.clientId, handleComms: false,
    });
    this.connection = connection;
    connection.iopubMessage.connect((_, message) => this.route(message));
    connection.statusChanged.connect((_, status) => this.follow(status));
    connection.connectionStatusChanged.connect((_, status) => {
      if (status !== "connected") return;
      this.isConnected = true;
      for (const id of this.listeners.keys()) this.interrupted.add(id);
      this.onConnected();
      void this.prepare(kernel.execution_state === "busy" || this.listeners.size > 0);
      kernel.execution_state = "";
    });
    return true;
  }

  /** The connection is gone: this machine has slept, the kernel is starting again, or the server is. */
  async recover() {
    const { connection } = this;
    this.isConnected = false;
    if (this.recovering || !connection) return;
    this.recovering = true;
    this.tell(this.state === "starting" ? "starting" : "lost");
    while (!this.isConnected) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      if (this.isConnected || (await this.access()) !== "open") continue;
      const id = this.connection?.id ?? connection.id;
      const answer = await ask(new URL(`api/kernels/${id}`, this.url)).catch(() => null);
      if (answer?.status === 404) this.endAll("lost");
      if (answer?.ok || answer?.status === 404) await this.attach().catch(() => false);
      await new Promise((resolve) => setTimeout(resolve, 1500)); // it takes a moment to connect
    }
    this.recovering = false;
  }

  /**
   * Imports the modules. The reply comes after all that was asked before, so what then still waits has ended.
   * @param {boolean} isBusy with what somebody has asked before
   */
  async prepare(isBusy) {
    const [waiting, late] = [[...this.listeners], [...this.late]];
    this.tell(isBusy ? "busy" : "starting");
    const future = this.connection?.requestExecute({ code: bootstrap(this.modules), store_history: false });
    let problem = "";
    if (future) future.onIOPub = ({ header, content }) => {
      if (header.msg_type === "error") problem = /** @type {any} */ (content).evalue;
    };
    const reply = await future?.done.catch(() => null);
    for (const [id] of waiting) this.end(id);
    for (const [id, listener] of late) this.repeat(id, listener);
    if (problem) this.tell("lost", problem);
    else if (reply && this.isConnected) this.tell("ready");
  }

  /** @param {import("@jupyterlab/services").Kernel.Status} status */
  follow(status) {
    if (status === "autorestarting" || status === "restarting") {
      this.endAll("lost"); // the connection is made anew, and then the modules are imported
      this.tell("starting");
    } else if (status === "dead") {
      this.endAll("lost");
      this.tell("lost");
    } else if (this.state === "busy" || this.state === "ready") {
      if (status === "busy") this.tell("busy");
      if (status === "idle") this.tell("ready");
    }
  }

  /** @param {import("@jupyterlab/services").KernelMessage.IIOPubMessage} message */
  route({ header, parent_header, content }) {
    const id = "msg_id" in parent_header ? parent_header.msg_id : "";
    const { msg_type: type } = header;
    if (type === "status" && /** @type {any} */ (content).execution_state === "idle") this.end(id);
    else (this.listeners.get(id) ?? this.late.get(id))?.onMessage({ type, content });
  }

  /**
   * A run has ended. If the connection has not been the same all the time, the kernel repeats what it has sent.
   * @param {string} id of its request
   */
  end(id) {
    const listener = this.listeners.get(id);
    if (!this.listeners.delete(id) || !listener) return;
    const end = () => listener.onEnd("done");
    if (listener.onRepeat) this.late.set(id, listener);
    if (!this.interrupted.delete(id) || !this.repeat(id, listener, end)) end();
  }

  /**
   * Lets a listener hear again, in their place among its messages, what its run has sent until now.
   * @param {string} id
   * @param {Listener} listener
   * @param {() => void} [onEnd]
   * @returns {boolean} whether the kernel is asked
   */
  repeat(id, { onRepeat }, onEnd = () => {}) {
    return onRepeat !== undefined && this.run(`live.repeat(${JSON.stringify(id)})`, {
      onMessage: ({ type, content }) => {
        const messages = type === "display_data" ? content.data["application/json"] : [];
        if (!messages.length || !this.late.has(id)) return;
        onRepeat(messages.map((/** @type {[string, any]} */ [type, content]) => ({ type, content })));
      },
      onEnd,
    }) !== null;
  }

  /** @param {string | null} id of a run, whose block no longer shows what it sends */
  forget(id) {
    if (id) this.late.delete(id);
  }

  /**
   * @param {string} code
   * @param {Listener} listener
   * @returns {string | null} the id of the request, null if nobody listens
   */
  run(code, listener) {
    if (!this.connection || !this.isConnected || this.connection.isDisposed) return null;
    const future = this.connection.requestExecute({
      code, store_history: false, stop_on_error: false, allow_stdin: false,
    });
    future.done.catch(() => {}); // the listener hears when the kernel is gone
    const id = future.msg.header.msg_id;
    this.listeners.set(id, listener);
    return id;
  }

  /**
   * Runs code whose outcome nobody needs.
   * @param {string} code
   */
  request(code) {
    return this.run(code, { onMessage: () => {}, onEnd: () => {} }) !== null;
  }

  /**
   * @param {string} code an expression whose value is a bundle of MIME types
   * @returns {Promise<any>} its JSON or else its text; null without a kernel
   */
  value(code) {
    return new Promise((resolve) => {
      /** @type {any} */
      let value = null;
      const asked = this.run(`display(${code}, raw=True)`, {
        onMessage: ({ type, content }) => {
          if (type === "display_data") value = content.data["application/json"] ?? content.data["text/plain"];
          if (type === "error") value = content.evalue;
        },
        onEnd: () => resolve(value),
      });
      if (!asked) resolve(null);
    });
  }

  async interrupt() {
    await this.connection?.interrupt().catch(() => {});
  }

  async restart() {
    const id = this.connection?.id;
    if (!id) return;
    this.endAll("lost");
    this.tell("starting");
    await KernelAPI.restartKernel(id, this.settings);
    await this.attach();
  }

  /** @param {"done" | "lost"} how */
  endAll(how) {
    const listeners = [...this.listeners.values()];
    this.listeners.clear();
    this.late.clear();
    this.interrupted.clear();
    for (const { onEnd } of listeners) onEnd(how);
  }

  /**
   * @param {State} state
   * @param {string} [why]
   */
  tell(state, why) {
    this.state = state;
    this.onState(state, why);
  }
}

/**
 * Asks our server, with what lets this browser in: another tab may have got it since this page was loaded.
 * @param {RequestInfo | URL} input
 * @param {RequestInit} [init]
 */
function ask(input, init) {
  const request = new Request(input, init);
  request.headers.set("Authorization", `token ${secret()}`);
  return fetch(request);
}

/**
 * The connection itself is late to notice that a socket has closed which nobody closed.
 * @param {() => void} onLost
 */
function watched(onLost) {
  return class extends WebSocket {
    intended = false;

    /** @param {ConstructorParameters<typeof WebSocket>} options */
    constructor(...[url, protocols = []]) {
      super(url, [protocols, "live", `live.${secret()}`].flat());
      this.addEventListener("close", () => this.intended || onLost());
      this.addEventListener("open", () => { // it stands for none of Jupyter's
        if (this.protocol === "live") Object.defineProperty(this, "protocol", { value: "" });
      });
    }

    /** @param {Parameters<WebSocket["close"]>} reason */
    close(...reason) {
      this.intended = true;
      super.close(...reason);
    }
  };
}

/**
 * A page that is loaded again is the same client for the server, which has kept what was sent meanwhile. While the
 * page is open the name is nowhere, so that a duplicate of its tab takes another.
 */
function clientId() {
  const key = "live-client";
  const id = sessionStorage.getItem(key) ?? crypto.randomUUID();
  sessionStorage.removeItem(key);
  addEventListener("pagehide", () => sessionStorage.setItem(key, id), { once: true });
  return id;
}
