import { type ReactNode, useEffect, useRef, useState } from 'react'
import type { Failure } from '../api/client'
import { text } from '../text'
import { Trouble } from './state'

// Modal is a window above the page. Without close, Escape does not close it.
export function Modal({ title, close, children }: { title: string; close?: (() => void) | undefined; children: ReactNode }) {
  const own = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    own.current?.showModal()
  }, [])
  const key = (e: React.KeyboardEvent) => {
    if (e.key !== 'Escape') return
    e.stopPropagation()
    if (!close) e.preventDefault()
  }
  return (
    <dialog ref={own} className="dialog" aria-label={title} onClose={close ?? (() => own.current?.showModal())} onKeyDown={key}>
      {children}
    </dialog>
  )
}

interface DialogProps {
  title: string
  children?: ReactNode
  field?: string // the label of a field for a few words, if there is one
  button: string
  danger?: boolean
  act: (words: string) => Promise<unknown>
  close: () => void
}

// Dialog asks before something is done, and stays with the reason when that fails.
export function Dialog({ title, children, field, button, danger, act, close }: DialogProps) {
  const [words, setWords] = useState('')
  const [busy, setBusy] = useState(false)
  const [failure, setFailure] = useState<Failure>()
  const submit = (e: React.FormEvent) => {
    e.preventDefault()
    if (busy) return
    setBusy(true)
    setFailure(undefined)
    act(words.trim()).then(close, (f: Failure) => {
      setFailure(f)
      setBusy(false)
    })
  }
  return (
    <Modal title={title} close={close}>
      <form onSubmit={submit}>
        <h2>{title}</h2>
        {children}
        {field && (
          <label className="words">
            {field}
            <input autoFocus maxLength={1000} value={words} onChange={(e) => setWords(e.target.value)} />
          </label>
        )}
        <Trouble failure={failure} />
        <div className="acts">
          <button type="submit" className={danger ? 'main danger' : 'main'} disabled={busy} autoFocus={!field}>
            {button}
          </button>
          <button type="button" onClick={close}>
            {text.cancel}
          </button>
        </div>
      </form>
    </Modal>
  )
}
