// Making elements, and changing them only where they differ.

interface Details {
  readonly class?: string;
  readonly text?: string;
  readonly title?: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

/** A new element with what it is made of. */
export function create<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  details: Details = {},
  ...children: readonly Node[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  if (details.class) element.className = details.class;
  if (details.text !== undefined) element.textContent = details.text;
  if (details.title) element.title = details.title;
  for (const [name, value] of Object.entries(details.attributes ?? {})) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Sets an element's text when it is another: most statuses change little. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Makes `parent`'s children exactly `children`, in order, moving only what is out of place. */
export function arrange(parent: Element, children: readonly Element[]): void {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  children.forEach((child, index) => {
    const current = parent.children[index];
    if (current !== child) parent.insertBefore(child, current ?? null);
  });
}
