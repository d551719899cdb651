// A browser starts no worker for a page that was opened as a file. There, the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  // As between threads: a message is a copy, and arrives later.
  const deliver = (receiver, data) => {
    const message = new MessageEvent("message", { data: structuredClone(data) });
    setTimeout(() => receiver.dispatchEvent(message));
  };
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.addEventListener("message", (message) => this.onmessage?.(message));
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => deliver(this, data);
      this.loaded = new Promise((resolve) => {
        const script = inside.document.createElement("script");
        script.src = new URL(url, location.href).href;
        script.onload = () => resolve(inside);
        inside.document.head.append(script);
      });
    }

    postMessage(data) {
      this.loaded.then((inside) => deliver(inside, data));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
